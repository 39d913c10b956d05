"""Interpolation: `${name}` in text, `$${` for a literal `${`. A Secret stays one, also inside longer text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from opsexec.errors import BadRunbook
from opsexec.runbook.reference import Lookup, Reference, read_reference
from opsexec.secret import Secret

Parts = tuple[str | Reference, ...]
MAX_FILLED = 4 << 20
"""Characters of a text with its variables filled in."""

_MARK = re.compile(r"\$?\$\{")


class SecretMisplaced(BadRunbook):
    """A Secret was about to stand where others can read it."""

    code = "secret_misplaced"


@lru_cache(maxsize=4096)
def parse_template(text: str) -> Parts:
    """Split text into literal pieces and references; raises BadRunbook for a malformed reference."""
    parts: list[str | Reference] = []
    at = 0
    literal = ""
    while (match := _MARK.search(text, at)) is not None:
        literal += text[at : match.start()]
        if match[0] == "$${":
            literal += "${"
            at = match.end()
            continue
        reference, at = read_reference(text, match.end())
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(reference)
    literal += text[at:]
    if literal:
        parts.append(literal)
    return tuple(parts)


def references(text: str) -> tuple[Reference, ...]:
    """Return the references in a text, in order."""
    return tuple(part for part in parse_template(text) if isinstance(part, Reference))


def whole_reference(text: str) -> Reference | None:
    """Return the reference when the text is exactly one `${...}`, else None."""
    parts = parse_template(text)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Reference) else None


def render(text: str, scope: Lookup) -> str | Secret:
    """Return the text with its references filled in: a Secret when any of them is one.

    Raises BadRunbook for a variable that is no text, number or bool, or is not there.
    """
    parts = parse_template(text)
    out: list[str] = []
    secret = False
    size = 0
    for part in parts:
        size = bounded(size + len(out[-1]) if out else 0, text)
        if isinstance(part, str):
            out.append(part)
            continue
        value = scope.lookup(part)
        if isinstance(value, Secret):
            secret = True
            out.append(value.reveal())
        else:
            out.append(scalar_text(part, value))
    joined = "".join(out)
    return Secret(joined) if secret else joined


def bounded(size: int, text: str) -> int:
    """Return the size; raises BadRunbook when it is over MAX_FILLED: variables that hold each other twice grow fast."""
    if size > MAX_FILLED:
        text = f"{text[:40]!r} is over {MAX_FILLED >> 20} MiB once its variables are filled in"
        raise BadRunbook(text, hint="push large data as files")
    return size


def render_open(text: str, scope: Lookup, place: str) -> str:
    """As `render`, for a place that others can read.

    Raises SecretMisplaced when a Secret would stand there.
    """
    value = render(text, scope)
    if isinstance(value, Secret):
        raise misplaced(text, place)
    return value


def misplaced(text: str, place: str) -> SecretMisplaced:
    """Return the error for a Secret in an open place; it shows the template only."""
    return SecretMisplaced(
        f"{text[:80]!r} would put a secret into {place}, where others can read it",
        hint="secrets may stand in env, stdin and a file's content",
    )


def scalar_text(reference: Reference, value: Any) -> str:
    """Return the text of a scalar: true and false for bools, the shortest form for numbers."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    kind = "null" if value is None else "a list" if isinstance(value, (list, tuple)) else "a map"
    raise BadRunbook(f"${{{reference}}} is {kind}, not text", hint="refer to one of its fields or entries")
