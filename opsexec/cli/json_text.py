"""JSON as the commands print it: readable in any language, and harmless on a terminal."""

from __future__ import annotations

import json
from typing import Any

from opsexec.steering import STEERING

_ESCAPED = {code: f"\\u{code:04x}" for code in STEERING}
"""JSON itself escapes what is below U+0020 alone."""


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Return data as JSON in which nothing that a host said can drive the terminal; it reads as the same data."""
    return json.dumps(data, ensure_ascii=False, indent=indent).translate(_ESCAPED)
