"""An agent's terminal, from the launcher's side: the argv that makes one inside, and what goes down to it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

from opsexec.errors import UsageError

PYTHON = "/usr/bin/python3"
MAX_SIDE = 4096


@dataclass(frozen=True)
class Size:
    """A terminal's size in characters, and its kind as terminfo names it."""

    columns: int
    rows: int
    term: str = "xterm-256color"

    def __post_init__(self) -> None:
        plain = self.term.replace("-", "").replace("+", "").replace(".", "").replace("_", "")
        if not (0 < self.columns <= MAX_SIDE and 0 < self.rows <= MAX_SIDE):
            raise UsageError("the terminal's size is out of range")
        if not (plain.isascii() and plain.isalnum() and len(self.term) <= 64):
            raise UsageError(f"{self.term[:40]!r} is not a terminal's name", hint="set TERM, like xterm-256color")


@cache
def relay() -> str:
    """Return the source of what runs inside."""
    from importlib.resources import files

    return files("bottle.sidecars").joinpath("terminal.py").read_text("utf-8")


def on_a_terminal(argv: tuple[str, ...], size: Size) -> tuple[str, ...]:
    """Return the words that run a program on a terminal; its stdin then takes frames."""
    return (PYTHON, "-I", "-S", "-c", relay(), str(size.columns), str(size.rows), size.term, "--", *argv)


def keys(data: bytes) -> bytes:
    """Return what was typed, as a frame."""
    return b"d" + struct.pack(">I", len(data)) + data


def resized(columns: int, rows: int) -> bytes:
    """Return a new size, as a frame."""
    return b"r" + struct.pack(">IHH", 4, min(columns, MAX_SIDE), min(rows, MAX_SIDE))
