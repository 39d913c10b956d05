"""What the library calls otherwise than a runbook does."""

from __future__ import annotations

import re

_TIMEOUT = re.compile(r"\btimeout_s\b(?=$| -?\d|=)")
"""As the errors have it that speak of the argument; a path or a word of somebody's own stays as it is."""


def in_keys(text: str) -> str:
    """Return an error's message or hint with the runbook's key where the library's argument is named."""
    return _TIMEOUT.sub("timeout", text)
