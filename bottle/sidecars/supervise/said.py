"""What the daemon says: one JSON line an event. What can be repeated for ever is said the 1st, 2nd, 4th, ... time."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def say(event: Mapping[str, Any]) -> None:
    """Say one line, ASCII only: no text of the agent's can end it or steer a terminal."""
    sys.stdout.write(json.dumps(event, ensure_ascii=True, separators=(",", ":")) + "\n")
    sys.stdout.flush()


class Refusals:
    """Counts what was refused, by reason. The reasons are this program's own texts, so there are few of them."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __call__(self, reason: str) -> None:
        """Count one, and say so when the count is a power of two."""
        count = self._counts[reason] = self._counts.get(reason, 0) + 1
        if count & (count - 1) == 0:
            say({"event": "refused", "reason": reason, "count": count})
