"""Finds the line of a key in TOML text, so that an error can point at it (tomllib keeps no positions)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'))*)\s*="""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'""")


def line_of(text: str, path: Sequence[str]) -> int:
    """Return the 1-based line where `path`, or its longest prefix found in the text, is written; else 1."""
    best, best_length = 1, 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _header(line)
        if header is not None:
            table = header
            here = table
        else:
            match = _KEY.match(line)
            if match is None:
                continue
            here = (*table, *(part.strip("\"'") for part in _PART.findall(match[1])))
        length = len(here)
        if length <= len(path) and tuple(path[:length]) == here and length > best_length:
            best, best_length = number, length
    return best


def _header(line: str) -> tuple[str, ...] | None:
    """Return the path of a `[table]` line, read by tomllib itself, or None for any other line."""
    if not line.lstrip().startswith("["):
        return None
    try:
        value: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    path = []
    while isinstance(value, (dict, list)) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        key, value = next(iter(value.items()))
        path.append(key)
    return tuple(path)
