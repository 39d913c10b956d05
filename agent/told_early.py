"""A reload that is asked for before the agent serves: it ends nothing, is remembered, and taken once it serves."""

from __future__ import annotations

import signal

_asked = False


def hold() -> None:
    """From here on SIGHUP is remembered; until then it would end the process."""
    signal.signal(signal.SIGHUP, _remember)


def taken() -> bool:
    """Return whether a reload was asked for since `hold`, and forget it."""
    global _asked
    asked, _asked = _asked, False
    return asked


def _remember(number: int, frame: object) -> None:
    global _asked
    _asked = True
