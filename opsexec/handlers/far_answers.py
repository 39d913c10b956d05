"""What the answers to file operations must look like: one of another shape comes from no host of ours."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

import msgspec

from opsexec.errors import ProtocolError
from opsexec.handlers.context import Context

Changes = dict[str, tuple[str, str]]
"""Attribute -> (before, after)."""


class Existence(msgspec.Struct, frozen=True):
    """Whether a path is there."""

    exists: bool


class Entry(Existence, frozen=True):
    """What `stat` tells of a path; the fields after `exists` are there when it is."""

    kind: str = ""
    size: int = 0
    mode: str = ""
    owner: str = ""
    group: str = ""
    uid: int = 0
    gid: int = 0
    mtime: float = 0.0
    path: str = ""
    target: str | None = None
    sha256: str | None = None


class Contents(msgspec.Struct, frozen=True):
    """What `read_file` tells beside the content."""

    path: str
    size: int
    mode: str


class Written(msgspec.Struct, frozen=True):
    """What `write_file` did."""

    path: str
    existed: bool
    old_size: int
    old_known: bool
    content: bool
    changes: Changes
    made: list[str]


class Removed(msgspec.Struct, frozen=True):
    """What `remove` took away."""

    path: str | None
    kind: str | None


class Moved(msgspec.Struct, frozen=True):
    """What `move_file` moved; `path` and `kind` None: nothing, it was there already."""

    path: str | None
    to: str
    kind: str | None


class Made(msgspec.Struct, frozen=True):
    """What `make_dir` made."""

    made: list[str]
    changes: Changes


class Linked(msgspec.Struct, frozen=True):
    """Where a link led, and where it leads now."""

    target: tuple[str | None, str]


class Settled(msgspec.Struct, frozen=True):
    """Which attributes `set_mode` changed."""

    changes: Changes


Shape = TypeVar("Shape", bound=msgspec.Struct)

MAX_DEPTH = 64
"""Objects and lists inside each other that an answer may have: what reads values deeper in would exhaust its stack."""
MAX_VALUES = 500_000
"""Values in an answer: a survey of 20 000 entries has half of that; 8 MiB of empty lists are five times as many, and
would take 180 MiB here for each host of a run."""


def decoded(answer: bytes, context: Context) -> dict[str, Any]:
    """Return an answer's JSON object, all of whose numbers are finite; raises ProtocolError for anything else.

    Also for one that is nested over MAX_DEPTH deep, or holds over MAX_VALUES values.
    """
    try:
        value = json.loads(answer, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the host's answer is not JSON", host=context.host.name) from error
    if not isinstance(value, dict):
        raise ProtocolError("the host's answer is not a JSON object", host=context.host.name)
    many = answer.count(b"[") + answer.count(b"{") > MAX_DEPTH or answer.count(b",") > MAX_VALUES
    if many and (excess := _excess(value)):
        raise ProtocolError(f"the host's answer {excess}", host=context.host.name)
    return value


def _excess(value: dict[str, Any]) -> str:
    """Return what JSON data has too much of, empty for nothing; reads it level by level."""
    level: list[Any] = [value]
    count = 0
    for _ in range(MAX_DEPTH):
        count += sum(map(len, level))
        if count > MAX_VALUES:
            return f"holds over {MAX_VALUES} values"
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return ""
    return f"is nested over {MAX_DEPTH} deep"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a number")
    return value


def shaped(value: dict[str, Any], shape: type[Shape], context: Context) -> Shape:
    """Return the answer as this shape; raises ProtocolError when it is another."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        text = f"the host's answer is no {shape.__name__}: {error}"
        raise ProtocolError(text, host=context.host.name, hint="both sides must be the same version") from error


def answered(answer: bytes, shape: type[Shape], context: Context) -> Shape:
    """Return a JSON answer as this shape; raises ProtocolError."""
    return shaped(decoded(answer, context), shape, context)
