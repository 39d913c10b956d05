"""Puts what `opsexec --help` prints between the README's help markers; a test compares the two."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- help:begin -->", "<!-- help:end -->"


def with_help(readme: str) -> str:
    """Return the README's text with the help as it is now; raises ValueError where it has no markers."""
    from opsexec.cli.help import render
    from opsexec.cli.parser import build, commands

    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} or no {END}")
    return f"{before}{BEGIN}\n```text\n{render(build(commands()))}```\n{END}{after}"


def main() -> int:
    """Rewrite the README where its help is another; say so."""
    text = README.read_text()
    fresh = with_help(text)
    if fresh != text:
        README.write_text(fresh)
        print("README.md: help written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
