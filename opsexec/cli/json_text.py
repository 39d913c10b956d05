"""JSON as the commands print it: readable in any language, and harmless on a terminal."""

from __future__ import annotations

import json
from typing import Any

_STEERING = (*range(0x7F, 0xA0), 0x061C, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that steer a terminal or turn the reading direction. JSON itself escapes those below U+0020 alone."""

_ESCAPED = {code: f"\\u{code:04x}" for code in _STEERING}


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Return data as JSON in which nothing that a host said can drive the terminal; it reads as the same data."""
    return json.dumps(data, ensure_ascii=False, indent=indent).translate(_ESCAPED)
