"""`FakeEngine`: a socket where a container engine would be, and something else answers: nothing, nonsense, no end.

A real engine can't be made to do this; everything else is tried against one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

Manner = Literal[
    "silent", "nonsense", "no json", "odd json", "endless", "drip", "closes", "liar", "breaks off", "deep", "moved"
]
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class FakeEngine:
    """Answers every request in one manner; `connections`: how many are open."""

    def __init__(self, manner: Manner) -> None:
        self.manner = manner
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections -= 1
            writer.transport.abort()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match self.manner:
            case "silent":
                await reader.read()
            case "nonsense":
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            case "no json":
                writer.write(JSON + b"Content-Length: 9\r\n\r\n{not json")
            case "odd json":
                writer.write(JSON + b"Content-Length: 4\r\n\r\n[42]")
            case "closes":
                writer.transport.abort()
            case "liar":
                body = b'{"Id": 7, "NCPU": "many"}'
                writer.write(JSON + b"Api-Version: 1.41\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            case "breaks off":
                writer.write(JSON + b"Api-Version: 1.41\r\nContent-Length: 100\r\n\r\n{}")
                await writer.drain()
                writer.transport.abort()
            case "deep":
                body = b"[" * 100_000
                writer.write(JSON + b"Api-Version: 1.41\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            case "moved":
                writer.write(b"HTTP/1.1 301 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
            case "endless":
                writer.write(JSON + b"Content-Length: 100000000000\r\n\r\n")
                while True:
                    writer.write(b" " * (1 << 20))
                    await writer.drain()
            case "drip":
                writer.write(JSON + b"Content-Length: 100000\r\n\r\n")
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def fake_engine(path: Path, manner: Manner) -> AsyncIterator[FakeEngine]:
    """One that answers while this lasts."""
    engine = FakeEngine(manner)
    server = await asyncio.start_unix_server(engine.serve, path)
    try:
        yield engine
    finally:
        server.close()
