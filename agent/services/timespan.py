"""Time spans as systemd writes and reads them (systemd.time(7)), in seconds."""

from __future__ import annotations

import math
import re

_UNITS = {
    "usec": 1e-6, "us": 1e-6, "msec": 1e-3, "ms": 1e-3, "seconds": 1, "second": 1, "sec": 1, "s": 1, "": 1,
    "minutes": 60, "minute": 60, "min": 60, "m": 60, "hours": 3600, "hour": 3600, "hr": 3600, "h": 3600,
    "days": 86400, "day": 86400, "d": 86400, "weeks": 604800, "week": 604800, "w": 604800,
    "months": 2630016, "month": 2630016, "M": 2630016, "years": 31557600, "year": 31557600, "y": 31557600,
}  # fmt: skip
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def seconds(text: str) -> float | None:
    """Return a span like "1min 30s", "100ms", "6" or "infinity" in seconds; None for what is none."""
    text = text.strip()
    if text == "infinity":
        return math.inf
    if not text or len(text) > 100:
        return None
    total, at = 0.0, 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or match[2] not in _UNITS:
            return None
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    return total
