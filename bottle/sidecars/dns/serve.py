"""The resolver's daemon: UDP and TCP on one address, and no socket that leads anywhere else.

Reads one JSON object on stdin: `{"bottle", "address", "port", "names": {name: [address]}, "known": [[name, value]]}`.
`address` None: every address the bundle has. Serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import Any, cast

from bottle.sidecars.dns.answerer import Answerer

CONNECTIONS = 32
IDLE_S = 5.0
MAX_QUESTION = 4096
MAX_QUESTIONS = 100
"""What one connection may ask before it is closed."""


class Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram with at most one, to where it came from."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own isn't one by class

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Take one question."""
        found = self._answerer.answer(data)
        if found is not None and self._transport is not None:
            self._transport.sendto(found, addr)


class Connections:
    """Answers questions with their length before them, a few connections at a time, none of them idle for long."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._open = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        self._open += 1
        try:
            if self._open <= CONNECTIONS:
                await self._serve(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass  # silence, a cut or an end: all the same to a resolver
        finally:
            self._open -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(MAX_QUESTIONS):
            async with asyncio.timeout(IDLE_S):
                size = int.from_bytes(await reader.readexactly(2), "big")
                if size > MAX_QUESTION:
                    return
                found = self._answerer.answer(await reader.readexactly(size))
                if found is None:
                    return
                writer.write(len(found).to_bytes(2, "big") + found)
                await writer.drain()


def say(event: dict[str, Any]) -> None:
    """Say one line, ASCII only."""
    sys.stdout.write(json.dumps(event, separators=(",", ":")) + "\n")
    sys.stdout.flush()


async def serve(config: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, over.set)
    known = [(name, value) for name, value in config["known"]]
    answerer = Answerer(config["bottle"], config["names"], known, say, time.monotonic)
    address, port = config.get("address") or "0.0.0.0", int(config["port"])
    listening = await asyncio.start_server(Connections(answerer).accept, address, port, limit=MAX_QUESTION)
    port = listening.sockets[0].getsockname()[1]
    datagrams, _ = await loop.create_datagram_endpoint(lambda: Datagrams(answerer), local_addr=(address, port))
    say({"event": "ready", "daemon": "dns", "names": len(config["names"]), "port": port})
    try:
        await over.wait()
    finally:
        datagrams.close()
        listening.close()


def main() -> None:
    """Read the configuration and serve."""
    asyncio.run(serve(json.loads(sys.stdin.buffer.read())))


if __name__ == "__main__":
    main()
