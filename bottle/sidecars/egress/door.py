"""The agent's connections: taken from one unix socket, handed to mitmproxy, paced, and ended when they must."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mitmproxy import master
from mitmproxy.connection import Connection
from mitmproxy.proxy import layers, mode_servers, mode_specs

from bottle.sidecars.egress.addon import Gate, say
from bottle.sidecars.egress.bounds import pressure

MAX_CLIENTS = 512
PEER_ADDRESS = ("127.0.0.1", 0)
PEER = "127.0.0.1:0"
LOOK_AGAIN_S = 0.01


class UnixPeer:
    """A writer whose ends have addresses: mitmproxy expects pairs where a unix socket has none."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the writer's own, but for the two addresses."""
        if name in ("peername", "sockname"):
            return PEER_ADDRESS
        return self._writer.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class Paced:
    """A reader that waits while what was read before has nowhere to go."""

    def __init__(self, reader: asyncio.StreamReader, stalls: Callable[[], bool]) -> None:
        self._reader = reader
        self._stalls = stalls

    async def read(self, size: int) -> bytes:
        """Read a block, once there is room for it."""
        while self._stalls():  # noqa: ASYNC110 -- whose queue grows shorter tells nobody
            await asyncio.sleep(LOOK_AGAIN_S)
        return await self._reader.read(size)


class Handler(mode_servers.ProxyConnectionHandler):
    """mitmproxy's handler of one client, which ends with an error of its own instead of going on half broken."""

    broken: Callable[[], None]

    async def handle_connection(self, connection: Connection) -> None:
        """Read one side of it to its end."""
        io = self.transports[connection]
        held, from_client = pressure(self.client), connection is self.client
        io.reader = Paced(io.reader, lambda: held.stalls(client=from_client))
        await super().handle_connection(connection)

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        """As mitmproxy's; an error in a layer ends the connection, whose state nobody knows then."""
        super().log(message, level, exc_info)
        if level >= logging.ERROR and exc_info:
            self.broken()


@dataclass
class _Open:
    writer: asyncio.StreamWriter
    since: float = field(default_factory=time.monotonic)
    """When it last was of use: it came, asked something, or was answered."""

    asked: int = 0
    """Requests without an answer yet, a WebSocket among them."""


class Door:
    """Accepts the agent's connections, up to a number; then the one that was idle longest makes room."""

    def __init__(self, proxy: master.Master, gate: Gate) -> None:
        self._proxy = proxy
        self._gate = gate
        self._mode = mode_specs.ProxyMode.parse("regular")
        self._open: dict[str, _Open] = {}
        gate.close = self.close
        gate.asks = self.asks

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        if len(self._open) >= MAX_CLIENTS and not self._made_room():
            say({"event": "egress", "decision": "deny", "reason": f"over {MAX_CLIENTS} connections"})
            writer.close()
            return
        handler = Handler(self._proxy, reader, UnixPeer(writer), self._proxy.options, self._mode)
        handler.layer = layers.modes.HttpProxy(handler.layer.context)
        client = handler.layer.context.client.id
        handler.broken = lambda: self.close(client)
        self._open[client] = _Open(writer)
        try:
            await handler.handle_client()
        finally:
            self._open.pop(client, None)
            writer.close()

    def _made_room(self) -> bool:
        idle = [(each.since, client) for client, each in self._open.items() if not each.asked]
        if not idle:
            return False
        _, client = min(idle)
        say({"event": "egress", "decision": "deny", "reason": f"over {MAX_CLIENTS} connections: the idlest is closed"})
        self.close(client)
        del self._open[client]
        return True

    def asks(self, client: str, change: int) -> None:
        """Count a request in (1) or out (-1)."""
        found = self._open.get(client)
        if found is not None:
            found.asked = max(0, found.asked + change)
            found.since = time.monotonic()

    def close(self, client: str) -> None:
        """End one connection at once, whatever is still to be sent on it."""
        found = self._open.get(client)
        if found is not None:
            found.writer.transport.abort()

    def close_all(self) -> None:
        """End every connection."""
        for client in list(self._open):
            self.close(client)
