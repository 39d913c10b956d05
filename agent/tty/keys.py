"""`Keys`: what a caller types and how large their screen is, read from the request's beginning on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from agent.body import Body
from opsexec.errors import ConnectionLost, OpsError

T = TypeVar("T")
ROOM_BYTES = 64 << 10
"""Keys that wait for the program above which no more are read: then the caller's connection holds them."""

OPEN_S = 1.0
"""Seconds that opening may still take once its caller has left: what has begun then ends in order, with its status."""


class Keys:
    """Reads ahead a little, so that a caller who leaves is heard while the terminal is still being opened."""

    def __init__(self, body: Body) -> None:
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(body))

    async def _read(self, body: Body) -> None:
        try:
            async for kind, data in body.keys():
                while self._size >= ROOM_BYTES:
                    await self._change()
                self._waiting.append((kind, data))
                self._size += len(data) + 1
                self._changed.set()
        finally:
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def next(self) -> tuple[int, bytes] | None:
        """Return the next (STDIN or RESIZE, payload), None at the end; raises ProtocolError."""
        while not self._waiting:
            if self._reading.done():
                self._reading.result()
                return None
            await self._change()
        found = self._waiting.popleft()
        self._size -= len(found[1]) + 1
        self._changed.set()
        return found

    async def or_left(self, opening: Coroutine[Any, Any, T]) -> T:
        """Return what opening the terminal gives; gives up, and raises, when the keys end before."""
        task = asyncio.create_task(opening)
        try:
            await asyncio.wait((task, self._reading), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((task,), timeout=OPEN_S)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
        if not task.cancelled():
            return task.result()
        self._reading.result()
        raise ConnectionLost("the caller left before the terminal opened")

    async def aclose(self) -> None:
        """Read no more."""
        self._reading.cancel()
        await asyncio.wait((self._reading,))
        if not self._reading.cancelled() and isinstance(self._reading.exception(), OpsError):
            self._waiting.clear()  # malformed keys after the program's end concern nobody any more
