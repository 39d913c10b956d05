"""What the library calls otherwise than a runbook does."""

from __future__ import annotations

import re

from opsexec.runbook.fields import KEY_OF

_KEY_OF = {kind.__name__: key for kind, key in KEY_OF.items()}
_GIVEN = re.compile(r"\btimeout_s=(?=\d)")
_TIMEOUT = re.compile(r"\btimeout_s\b(?=$| -?\d|=)")
"""As the errors have it that speak of the argument; a path or a word of somebody's own stays as it is."""

_FLAG = re.compile(r"\b(internal|gateway)=True\b")
_KIND = re.compile(r"(?<!['\"/.\w])(?:Container|Image|Network)[A-Z][A-Za-z]+\b(?!['\"/.])")


def in_keys(text: str) -> str:
    """Return an error's message or hint with the runbook's keys where the library's names stand."""
    text = _TIMEOUT.sub("timeout", _GIVEN.sub("timeout: ", text))
    return _KIND.sub(lambda found: _KEY_OF.get(found[0], found[0]), _FLAG.sub(r"\1: true", text))
