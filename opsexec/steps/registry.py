"""Steps to and from the wire, and their redacted form for audit, journal and dry-run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from opsexec.errors import BadStep
from opsexec.secret import MASK, Secret
from opsexec.steps.base import Step
from opsexec.steps.text import as_bytes

LONG_TEXT = 4096
LONG_LIST = 64 << 10
"""What a step may add to an audit line of at most 1 MiB, in characters; longer ones stand there by their digest."""

LONG_PARTS = 500
"""How many files or networks of a step an audit line shows."""

_BULK = frozenset({"content", "data", "script", "stdin", "runbook", "dockerfile"})
"""Fields that hold bodies: shown as their length and digest."""

_UNSEEN = frozenset({"updates"})
"""Fields that hold texts nobody has judged yet, like the ref names of a push: shown as their count and digest."""


def encode_step(step: Step) -> bytes:
    """Return the step as msgpack, secrets revealed: for the wire to the host that needs them, nothing else."""
    return msgspec.msgpack.encode(step)


def decode_step(data: bytes) -> Step:
    """Decode msgpack into a Step; raises BadStep for anything that is not one."""
    from opsexec.steps.vocabulary import decoder

    try:
        return decoder().decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadStep(f"not a step: {error}") from error


def redact(step: Step) -> dict[str, Any]:
    """Return the step as plain JSON data for the audit: no secret, no body, no environment value.

    Bodies become `{bytes, sha256}`; a Secret's digest is left out, since short secrets can be guessed from it.
    """
    return {"type": str(type(step).__struct_config__.tag), **_redact_fields(step)}


def _redact_fields(step: msgspec.Struct) -> dict[str, Any]:
    info: dict[str, Any] = {}
    for name, default in _shape(type(step)):
        value = getattr(step, name)
        if value is None or value == default:
            continue
        if name == "env":
            if value:
                info["env"] = _brief_list(sorted(value))
        elif isinstance(value, Secret):
            info[name] = MASK
        elif name in _BULK:
            body = as_bytes(value) if isinstance(value, str) else value
            info[name] = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        elif name in _UNSEEN:
            info[name] = {"count": len(value), "sha256": _digest("\n".join(value))}
        elif isinstance(value, tuple):
            info[name] = [redact(each) for each in value] if name == "steps" else _brief_parts(value)
        else:
            info[name] = brief(value) if isinstance(value, str) else value
    return info


def brief(text: str) -> str:
    """Return a text as an audit line takes it: printable; of a long one its head, its length and its digest."""
    if len(text) > LONG_TEXT:
        text = f"{text[:LONG_TEXT]}... ({len(text)} characters, sha256 {_digest(text)})"
    return str(printable(text))


def _brief_parts(values: Sequence[Any]) -> list[Any]:
    """Return a tuple's values: texts, each brief; structs, like a step, with their bodies and secrets left out."""
    if not any(isinstance(each, msgspec.Struct) for each in values):
        return _brief_list(values)
    shown = [_redact_fields(each) for each in values[:LONG_PARTS]]
    return shown if len(values) == len(shown) else [*shown, f"... ({len(values) - len(shown)} more)"]


def _brief_list(texts: Sequence[str]) -> list[str]:
    """Return texts, each brief; what passes LONG_LIST characters in all is counted, and stands by its digest."""
    shown: list[str] = []
    size = 0
    for at, text in enumerate(texts):
        short = brief(text)
        size += len(short) + 8
        if size > LONG_LIST:
            rest = texts[at:]
            return [*shown, f"... ({len(rest)} more, sha256 {_digest(chr(0).join(rest))})"]
        shown.append(short)
    return shown


def _digest(text: str) -> str:
    return hashlib.sha256(as_bytes(text)).hexdigest()


def printable(value: Any) -> Any:
    """Return a text without lone surrogates (bytes that were no UTF-8, escaped as `\\udcff`); anything else as it is.

    Words and paths of a host may be any bytes; an audit line is UTF-8.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()


@cache
def _shape(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """Return the (name, default) pairs of a Step type; reading them from msgspec each time costs 100 us."""
    return tuple((f.name, f.default) for f in msgspec.structs.fields(kind))
