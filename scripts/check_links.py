"""Checks that every relative link in the Markdown files leads to a file; prints the dead ones and exits 1."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
EXTERNAL = re.compile(r"^[a-z][a-z0-9+.-]*:")


def documents() -> list[Path]:
    """Markdown files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def main() -> int:
    """Return 1 when a link leads nowhere, else 0."""
    dead = [
        f"{document.relative_to(ROOT)}:{number}: {target}"
        for document in documents()
        for number, line in enumerate(document.read_text().splitlines(), 1)
        for target in LINK.findall(line)
        if not EXTERNAL.match(target) and not (document.parent / target).exists()
    ]
    for link in dead:
        print(f"dead link: {link}", file=sys.stderr)
    print(f"docs: {len(documents())} documents, {len(dead)} dead links")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
