"""One connection of git's own protocol: silence of both sides ends it, and a last word arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from bottle.sidecars.git_gate.bounds import Pace

T = TypeVar("T")
BLOCK = 1 << 16


class Silence(Exception):
    """Nothing came, and nothing was taken, for as long as that may last."""


class Line:
    """`idle_s`: seconds for which neither side may say nothing, where that is held."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle_s: float) -> None:
        self._reader = reader
        self._writer = writer
        self._idle_s = idle_s
        self._pace = Pace(idle_s)
        self._clock = asyncio.get_running_loop()
        self._held: asyncio.Timeout | None = None

    @asynccontextmanager
    async def lively(self, idle_s: float | None = None) -> AsyncIterator[None]:
        """Hold it to the bound, which begins again with what is sent, and with each MOVES_BYTES. Raises Silence.

        `idle_s`: another bound in here.
        """
        idle_s = idle_s or self._idle_s
        self._pace = Pace(idle_s)
        try:
            async with asyncio.timeout(idle_s) as self._held:
                yield
        except TimeoutError:
            if self._held is None or not self._held.expired():
                raise
            raise Silence(f"nothing came for {idle_s:g} s") from None
        finally:
            self._held = None

    async def at_once(self, work: Awaitable[T]) -> T:
        """Return what comes of it within the bound, whatever trickles in meanwhile. Raises Silence."""
        try:
            async with asyncio.timeout(self._idle_s):
                return await work
        except TimeoutError:
            raise Silence(f"nothing whole came for {self._idle_s:g} s") from None

    def _stir(self) -> None:
        """Begin the bound anew, less what was waited for little."""
        if self._held is not None and not self._held.expired():
            self._held.reschedule(self._clock.time() + max(0.0, self._pace.left_s))

    async def read(self) -> bytes:
        """Return what comes next, b"" at the end."""
        began = self._clock.time()
        block = await self._reader.read(BLOCK)
        self._pace.came(len(block), self._clock.time() - began)
        self._stir()
        return block

    async def write(self, data: bytes) -> None:
        """Send, no faster than the client takes it. Raises ConnectionError where it has left."""
        self._writer.write(data)
        await self._writer.drain()
        self._pace.again()
        self._stir()

    async def finish(self, last: bytes = b"") -> None:
        """Send the last word, say that it was the last, and take what is still coming: who sends doesn't listen."""
        async with self.lively():
            self._writer.write(last)
            if self._writer.can_write_eof():
                self._writer.write_eof()
            await self._writer.drain()
            while await self.read():
                pass

    def abort(self) -> None:
        """Close it now, whatever was to come; after `finish` nothing was."""
        self._writer.transport.abort()
