"""One accepted connection: aiohttp's protocol, with the peer's identity and bounds on what an idle one costs."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from agent.config import Limits
from agent.principal import peer_principal

NEVER_S = 1e6
"""Handed to aiohttp for its own clock of idle connections, which begins with the first answer; ours begins at once."""

LINGER_S = 5.0
"""Seconds that input nobody reads is thrown away after an answer: closing at once could lose the answer with it."""

Fault = Callable[[str, str | None, int, str], web.Response]
"""What answers a request that aiohttp could not read or that nobody caught an error of: listener, principal, HTTP
status, what kind of error."""

Serve = Callable[[web.BaseRequest, str, str | None], Awaitable[web.StreamResponse]]


class Gate:
    """What the connections of one agent share: how many there are, whose, and who serves them."""

    def __init__(self, serve: Serve, fault: Fault, limits: Limits) -> None:
        self.limits = limits
        self.fault = fault
        self.held: Counter[str | None] = Counter()
        self._serve = serve
        self.server = web.Server(self._handle, handler_cancellation=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.busy = True
        try:
            return await self._serve(request, connection.listener, connection.principal)
        finally:
            connection.rest()

    def protocol(self, listener: str) -> asyncio.BaseProtocol:
        """Return the protocol for a connection that was just accepted at a listener."""
        return Connection(self, listener)


class Connection(web.RequestHandler):
    """The connection is who it is from beginning to end: the kernel says so once, when it is made."""

    def __init__(self, gate: Gate, listener: str) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            gate.server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None turns the log off; the audit has every request
            keepalive_timeout=NEVER_S,
            lingering_time=LINGER_S,
            max_line_size=4096,
            max_field_size=4096,
        )
        self._gate = gate
        self._clock = loop
        self._idle: asyncio.TimerHandle | None = None
        self._counted = False
        self.listener = listener
        self.principal: str | None = None
        self.busy = False
        self.on_left: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Settle who this is; over the bounds it is closed before it is served."""
        self.principal = peer_principal(transport.get_extra_info("socket"))
        gate = self._gate
        limits, mine = gate.limits, gate.held[self.principal]
        if gate.held.total() >= limits.max_connections or mine >= limits.max_connections_per_principal:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
            return
        gate.held[self.principal] += 1
        self._counted = True
        super().connection_made(transport)
        self.rest()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads the answer; aiohttp never keeps one open
        """Half a close ends what runs for this connection, and its caller waits to hear so; else it is a close."""
        if self.on_left is None:
            return False
        self.close()
        self.on_left()
        return True

    def rest(self) -> None:
        """No request is under way: the next must be whole within the idle time, however its bytes drip in."""
        self.busy = False
        if self._idle is not None:
            self._idle.cancel()
        if self._counted:
            self._idle = self._clock.call_later(self._gate.limits.idle_timeout_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not self.busy:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back; aiohttp cancels what runs for it."""
        if self._idle is not None:
            self._idle.cancel()
        if self._counted:
            self._counted = False
            self._gate.held[self.principal] -= 1
            if not self._gate.held[self.principal]:
                del self._gate.held[self.principal]
            super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer, and record, what isn't HTTP; an error that nobody caught is said by its kind alone.

        A message or a traceback may hold what a step holds.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: all that is left is to close the connection")
        response = self._gate.fault(self.listener, self.principal, status, type(exc).__name__)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Say that something failed, by its kind alone."""
        error = kw.get("exc_info")
        kind = type(error).__name__ if isinstance(error, BaseException) else "an error"
        print(f"ops-agent: {kind} while serving {self.principal} on {self.listener}", file=sys.stderr, flush=True)
