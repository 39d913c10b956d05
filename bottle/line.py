"""The launcher's line to a bundle: its stdin, held open. Its end is how a bundle knows that its launcher is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

MAX_WAITING = 1024
"""Lines. What the bundle doesn't take is left out then: a reload that isn't confirmed counts as failed."""


class Line:
    """Says what it is told to, in order, and never ends by itself."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)

    def send(self, text: str) -> bool:
        """Say one line; False when too many wait already. A line break in it would be another line: it has none."""
        if "\n" in text or self._waiting.full():
            return False
        self._waiting.put_nowait(text)
        return True

    async def words(self) -> AsyncIterator[bytes]:
        """Yield the lines, for a run's stdin."""
        while True:
            yield (await self._waiting.get()).encode() + b"\n"
