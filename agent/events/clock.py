"""When something happened, as events say it."""

from __future__ import annotations

import time


def stamp() -> float:
    """Return seconds since 1970, to the millisecond."""
    return round(time.time(), 3)
