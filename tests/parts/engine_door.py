"""A socket before an engine's own, which a test shuts as a dying engine would: all connections broken, nobody there."""

from __future__ import annotations

import asyncio
from pathlib import Path


class EngineDoor:
    """Carries connections from `path` to an engine while it is open.

    `never_ends`: in the first words of a connection whose end, from the engine's side, is kept back.
    """

    def __init__(self, path: Path, engine: Path, never_ends: bytes | None = None) -> None:
        self.path = path
        self._engine = engine
        self._never_ends = never_ends
        self._shut = asyncio.Event()
        self._served: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen."""
        self._shut.clear()
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def shut(self) -> None:
        """Break every connection, and listen no more."""
        if self._server is not None:
            self._server.close()
        self._shut.set()
        for writer in self._writers:
            writer.transport.abort()
        self.path.unlink(missing_ok=True)
        if self._served:
            await asyncio.wait(self._served, timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        task.add_done_callback(self._served.discard)
        there, back = await asyncio.open_unix_connection(self._engine)
        self._writers |= {writer, back}
        try:
            back.write(first := await reader.read(1 << 16))
            held = self._never_ends is not None and self._never_ends in first
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer, held=held))
        except ConnectionError:
            writer.transport.abort()
            back.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool = False) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if held:
            await self._shut.wait()
        if writer.can_write_eof():
            writer.write_eof()
