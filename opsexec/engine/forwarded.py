"""A unix socket on this machine that leads to one behind SSH, and nothing of which is left once it is closed.

asyncssh's own listener lets connections be that it has accepted and not yet led on: their sockets would stay open until
somebody collects the garbage.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from asyncssh.forward import SSHLocalPathForwarder

if TYPE_CHECKING:
    import asyncssh

LET_GO_S = 5.0
"""Seconds that connections which were cut may take to be gone; it is a turn of the loop."""


class _Links:
    """The connections that were accepted and aren't gone. `closed`: none is wanted any more."""

    def __init__(self) -> None:
        self.open: set[_Link] = set()
        self.closed = False
        self.gone = asyncio.Event()

    async def close(self) -> None:
        """Cut every one, and see it gone."""
        self.closed = True
        for link in list(self.open):
            link.cut()
        with suppress(TimeoutError):  # one of which nothing came has nothing open
            async with asyncio.timeout(LET_GO_S):
                while self.open:
                    self.gone.clear()
                    await self.gone.wait()


class _Link(SSHLocalPathForwarder):
    """One connection, led on to `far`."""

    def __init__(self, connection: asyncssh.SSHClientConnection, far: str, links: _Links) -> None:
        super().__init__(connection, lambda session: connection.create_unix_connection(session, far))
        self._links = links
        self._near: asyncio.Transport | None = None
        links.open.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lead it on, unless it comes too late."""
        assert isinstance(transport, asyncio.Transport)
        self._near = transport
        if self._links.closed:
            self.cut()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; so is its other end, as soon as that is there, and without what it was to be asked."""
        self._inpbuf = b""  # nobody waits for the answer
        self._eof_received = True  # read once the other end is there: that is told then, and closes
        self._links.open.discard(self)
        self._links.gone.set()
        super().connection_lost(exc)

    def cut(self) -> None:
        """End it without another word; one that is still to come ends itself."""
        if self._near is not None:
            self._near.abort()


@asynccontextmanager
async def forwarded(connection: asyncssh.SSHClientConnection, near: str, far: str) -> AsyncIterator[None]:
    """Lead each connection to `near` on to the socket `far` behind an SSH connection. Raises OSError."""
    links = _Links()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: _Link(connection, far, links), near)
    try:
        yield
    finally:
        for each in server.sockets:
            loop.remove_reader(each)
        try:
            await asyncio.sleep(0)  # asyncio loses one that it has accepted and not made when the server is closed
        finally:
            server.close()
            await links.close()
