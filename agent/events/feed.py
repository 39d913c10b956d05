"""`Feed`: one follower's events on their way: bounded, and what didn't fit is counted and said."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from agent.events.clock import stamp

MAX_WAITING = 256

Event = dict[str, Any]


class Feed:
    """Events wait here while their follower is slow. Over MAX_WAITING they are dropped, and their number comes next."""

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit = limit
        self._waiting: deque[Event] = deque()
        self._dropped = 0
        self._some = asyncio.Event()

    def put(self, event: Event) -> None:
        """Take an event, or count it."""
        if self._dropped or len(self._waiting) >= self._limit:
            self._dropped += 1
        else:
            self._waiting.append(event)
        self._some.set()

    async def get(self) -> Event:
        """Return the next event; where some were dropped, how many, in their place."""
        await self._some.wait()
        if self._waiting:
            event = self._waiting.popleft()
        else:
            event = {"ts": stamp(), "event": "dropped", "count": self._dropped}
            self._dropped = 0
        if not self._waiting and not self._dropped:
            self._some.clear()
        return event
