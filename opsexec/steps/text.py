"""Text on its way to a host: UTF-8, in which `\\udc80` to `\\udcff` stand for bytes that were none (PEP 383)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec

from opsexec.errors import BadStep
from opsexec.secret import Secret


def as_bytes(text: str) -> bytes:
    """Return text as the host gets it; raises BadStep for another lone surrogate, which stands for nothing."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        # `from None`: Python's own error holds the whole text, which may be a secret.
        text = f"U+{ord(error.object[error.start]):04X} at character {error.start} is no character"
        raise BadStep(text, hint="give the character itself, or bytes") from None


MAX_VALUES = 10_000
"""Values that a field of a step may hold, however deep: each is looked at several times, and nobody is served then."""

MAX_WORDS = 100_000
"""The same of words that a program is given, which are cheap, and of all the steps of a schedule."""

_LIMITS = {"argv": MAX_WORDS, "steps": MAX_WORDS}


def require_text(name: str, value: Any) -> int:
    """Raise BadStep, naming the field, unless every text in its value can be sent; returns how many values it holds."""
    if isinstance(value, Secret):
        value = value.reveal()
        if not isinstance(value, str):
            raise BadStep(f"{name} is a Secret that holds no text", hint="make it of a str")
    if isinstance(value, str):
        if not value.isascii():
            try:
                as_bytes(value)
            except BadStep as error:
                raise BadStep(f"{name}: {error.message}", hint=error.hint) from None
        return 1
    if not isinstance(value, (tuple, list, dict, msgspec.Struct)):
        if isinstance(value, os.PathLike):
            raise BadStep(f"{name} is a path object, not text", hint="give str(path)")
        return 1
    limit = _LIMITS.get(name, MAX_VALUES)
    count = 0 if isinstance(value, msgspec.Struct) else len(value)
    if count <= limit:
        count = 0
        for each in _inside(value):
            count += require_text(name, each)
            if count > limit:
                break
    if count > limit:
        raise BadStep(f"{name} holds more than {limit} values", hint="make several steps of it")
    return count


def _inside(value: tuple[Any, ...] | list[Any] | dict[Any, Any] | msgspec.Struct) -> Iterable[Any]:
    if isinstance(value, dict):
        return (*value, *value.values())
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    return value
