"""References: `name.field[0]`, as they stand inside `${...}`, and reading one from a value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from opsexec.errors import BadRunbook

MAX_REFERENCE = 256
"""Longest reference, in characters."""

_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*|\[[0-9]{1,6}\])*")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+)\]")


class UndefinedVariable(BadRunbook):
    """A reference to a variable that this host doesn't have at this point."""

    code = "undefined"


class Reference(NamedTuple):
    """A variable's name and the way into its value: field names and list positions."""

    name: str
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        return self.name + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.path)


class Lookup(Protocol):
    """Where references are resolved. The answer may be a Secret."""

    def lookup(self, reference: Reference) -> Any:
        """Return the value; raises UndefinedVariable."""
        ...


def read_reference(text: str, start: int) -> tuple[Reference, int]:
    """Read `name.path}` at `start` (just after `${`); return it and the position after the brace."""
    match = _REFERENCE.match(text, start, start + MAX_REFERENCE)
    end = match.end() if match else start
    if match is None or text[end : end + 1] != "}":
        shown = text[start : start + 30].partition("\n")[0]
        raise BadRunbook(
            f"malformed reference at ${{{shown!s}",
            hint="write ${name}, ${name.field} or ${name[0]}; a literal ${ is written $${",
        )
    name, rest = re.match(r"[A-Za-z0-9_-]+", match[0]), match[0]
    assert name is not None
    path = tuple(int(index) if index else field for field, index in _STEP.findall(rest[name.end() :]))
    return Reference(name[0], path), end + 1


def descend(reference: Reference, value: Any) -> Any:
    """Follow the reference's path into a value; raises UndefinedVariable naming what is not there."""
    seen = reference.name
    for part in reference.path:
        if isinstance(part, int):
            if not isinstance(value, (list, tuple)):
                raise UndefinedVariable(f"{seen} is not a list", hint=f"so it has no [{part}]")
            if part >= len(value):
                raise UndefinedVariable(f"{seen} has {len(value)} entries, so no [{part}]", hint="counting from 0")
            value = value[part]
            seen += f"[{part}]"
            continue
        if not isinstance(value, Mapping):
            raise UndefinedVariable(f"{seen} has no fields, so no .{part}", hint="only maps and step results do")
        if part not in value:
            raise UndefinedVariable(f"{seen} has no field {part!r}", hint=nearest(part, map(str, value)))
        value = value[part]
        seen += f".{part}"
    return value


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return a hint naming the known word that looks most like `wrong`, or all that are known."""
    words = sorted(known)
    near = difflib.get_close_matches(wrong, words, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(words) - 20} more" if len(words) > 20 else ""
    return "known: " + ", ".join(words[:20]) + more if words else "none is defined"
