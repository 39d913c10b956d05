"""The bundle's doors on a network: ports of one address, each of which leads to one of the bundle's own sockets.

Reads one JSON object on stdin: `{"address": "198.18.0.2", "doors": {"8877": "/run/bundle/doors/egress.sock"}}`. It
listens on that address alone, so that nobody on the bundle's other network finds a gate there. Serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from functools import partial
from typing import Any, cast

CONNECTIONS = 1024
"""Of all doors together; what is over it is closed at once."""

LOW, HIGH = 64 << 10, 256 << 10
"""Bytes that wait for one side, below which the other is read again, and above which it isn't."""


class Side(asyncio.Protocol):
    """One of a connection's two ends: what comes in here goes out at the other, no faster than that one takes it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH, low=LOW)

    def data_received(self, data: bytes) -> None:
        """Hand on a block."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Hand on that nothing more comes; the other direction goes on."""
        if self.other is not None and self.other.transport is not None and self.other.transport.can_write_eof():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """Stop reading at the other end: this one is full."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading at the other end."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other end too: what it still holds is sent first, unless this one was cut off."""
        if self.other is not None and self.other.transport is not None:
            if exc is None:
                self.other.transport.close()
            else:
                self.other.transport.abort()


class Caller(Side):
    """A connection of the agent's. `open_now`: those there are, of all doors."""

    def __init__(self, socket: str, open_now: set[Caller]) -> None:
        super().__init__()
        self._socket = socket
        self._open = open_now
        self._reaching: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to reach whoever this is for."""
        super().connection_made(transport)
        assert self.transport is not None
        if len(self._open) >= CONNECTIONS:
            self.transport.abort()
            return
        self._open.add(self)
        self._reaching = asyncio.get_running_loop().create_task(self._reach())

    async def _reach(self) -> None:
        assert self.transport is not None
        # Nothing is read before there is somebody to hand it to. Python 3.11.2 takes no such word in connection_made.
        self.transport.pause_reading()
        try:
            _, inner = await asyncio.get_running_loop().create_unix_connection(Side, self._socket)
        except OSError:  # nobody behind the door: the caller sees its connection end
            self.transport.abort()
            return
        inner.other, self.other = self, inner
        if self.transport.is_closing():
            cast(asyncio.Transport, inner.transport).abort()
        else:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave, and take the inner end along."""
        self._open.discard(self)
        super().connection_lost(exc)


async def serve(config: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, over.set)
    open_now: set[Caller] = set()
    listening = []
    for port, socket in config["doors"].items():
        server = await loop.create_server(
            partial(Caller, socket, open_now),
            config["address"],
            int(port),
            backlog=128,
        )
        listening.append(server)
    sys.stdout.write(json.dumps({"event": "ready", "daemon": "doors", "doors": len(listening)}) + "\n")
    sys.stdout.flush()
    await over.wait()
    for server in listening:
        server.close()
    for caller in list(open_now):
        cast(asyncio.Transport, caller.transport).abort()


def main() -> None:
    """Read the configuration and serve."""
    asyncio.run(serve(json.loads(sys.stdin.buffer.read())))


if __name__ == "__main__":
    main()
