"""Runs the blocks of a Markdown document as a reader would, in order, in the present directory.

`toml` and `yaml` blocks that begin with a file's name in a comment become that file; `sh` blocks are run by sh;
`python` blocks share one namespace and may await, as in `python -m asyncio`. The first that fails ends it.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w.-]+)\n")
NOT_OURS = ("make demo\n", "make test\n")
"""What people are told to run that would run the tests again."""


class Block(NamedTuple):
    """One fenced block. `line`: where its text begins in the document, from 1."""

    language: str
    text: str
    line: int


def blocks(document: str) -> list[Block]:
    """Return every fenced block that names its language."""
    return [
        Block(match[1], match[2], document.count("\n", 0, match.start(2)) + 1) for match in _FENCE.finditer(document)
    ]


def run(name: str, document: str) -> None:
    """Run a document's blocks; raises what a python block raises, CalledProcessError for a sh block."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(document):
        if block.language in ("toml", "yaml"):
            file = _FILE.match(block.text)
            if file is not None:
                Path(file[1]).write_text(block.text)
        elif block.language == "sh" and block.text not in NOT_OURS:
            print(f"--- {name}:{block.line}\n{block.text}", flush=True)
            subprocess.run(["sh", "-eu", "-c", block.text], check=True, stdin=subprocess.DEVNULL)
        elif block.language == "python":
            print(f"--- {name}:{block.line}", flush=True)
            padded = "\n" * (block.line - 1) + block.text
            code = compile(padded, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            result = eval(code, namespace)  # noqa: S307 - the document's own examples are what is tested
            if inspect.iscoroutine(result):
                asyncio.run(result)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[1]).read_text())
