"""One accepted connection: aiohttp's protocol, with the peer's identity and bounds on what an idle one costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from agent import http_server as web
from agent.hangup import HangUps
from agent.identity import NOBODY, Identity, Prove
from agent.principal import BOTTLE, peer_principal
from agent.say import say
from opsexec.errors import OpsError
from opsexec.hosts.reading import read_in_blocks

if TYPE_CHECKING:
    from agent.config import Limits

NEVER_S = 1e6
"""Handed to aiohttp for its own clock of idle connections, which begins with the first answer; ours begins at once."""

LINGER_S = 5.0
"""Seconds that input nobody reads is thrown away after an answer: closing at once could lose the answer with it."""

Fault = Callable[[str, str | None, int, str], web.Response]
"""What answers a request that aiohttp could not read or that nobody caught an error of: listener, principal, HTTP
status, what kind of error."""

REASK_S = 7.0
"""Seconds between questions about who an open connection is: with the time they take, rights end within 15 s."""

UNASKED = "unasked:"
"""Whose place a connection takes that isn't known yet; who turns out to be nobody keeps none of these."""

GONE_LOOK_S = 0.25
"""Seconds between looks at whether what was sent by a peer who has gone has begun something that is to be ended."""

REVOKED_S = 2.0
"""Seconds a caller gets to hear that its rights are gone, before the connection is dropped."""

Serve = Callable[[web.BaseRequest, str, Identity], Awaitable[web.StreamResponse]]

Knows = Callable[[str, str | None], bool]
"""Whether anything at all is for who came by a listener: listener, principal."""

Revoked = Callable[[str, str | None, Identity], OpsError]
"""Told that a connection is no longer who it was: listener, who that was, who it is now. Returns what ends its runs."""


class Gate:
    """What the connections of one agent share: how many there are, whose, and who serves them."""

    def __init__(self, serve: Serve, fault: Fault, revoked: Revoked, knows: Knows, limits: Limits) -> None:
        self.limits = limits
        self.knows = knows
        self.fault = fault
        self.revoked = revoked
        self.asking: set[asyncio.Task[None]] = set()
        self.held: Counter[str | None] = Counter()
        self.hang_ups = HangUps(asyncio.get_running_loop())
        self._serve = serve
        self.server = web.Server(self._handle, handler_cancellation=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.busy = True
        try:
            response = await self._serve(request, connection.listener, connection.identity)
            if connection.principal is None:
                response.force_close()  # who it was, it no longer is
            return response
        finally:
            connection.rest()

    def protocol(
        self, listener: str, prove: Prove | None = None, socket_is: Identity | None = None
    ) -> asyncio.BaseProtocol:
        """Return the protocol for a connection that was just accepted.

        `prove`: who says whose it is, None = the kernel; `socket_is`: whoever comes to that socket, which is then all
        that is asked.
        """
        return Connection(self, listener, prove, socket_is)

    def drop_unread(self) -> None:
        """Drop who has been answered and doesn't read it: there is nothing else to wait for."""
        for each in self.server.connections:
            if isinstance(each, Connection) and each.writing_paused and not each.busy and each.transport is not None:
                each.transport.abort()

    async def aclose(self) -> None:
        """Ask no more about anyone."""
        self.hang_ups.close()
        for task in self.asking:
            task.cancel()
        if self.asking:
            await asyncio.wait(self.asking)


class Connection(web.RequestHandler):
    """Who it is, is settled before a byte of it is read, by the kernel or by tailscaled; the latter is asked again.

    What tailscaled says may change: then what runs for the connection is ended, and the connection with it.
    """

    def __init__(self, gate: Gate, listener: str, prove: Prove | None, socket_is: Identity | None) -> None:
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
        self._counted_as: str | None = None
        self.listener = listener
        self._prove = prove
        self._socket_is = socket_is
        self._asking: asyncio.Task[None] | None = None
        self._served = False
        self._socket = -1
        self._gone_look: asyncio.TimerHandle | None = None
        self.identity = NOBODY
        self.busy = False
        self.on_left: Callable[[], None] | None = None
        self.on_revoked: Callable[[OpsError], None] | None = None

    @property
    def principal(self) -> str | None:
        """Who this is."""
        return self.identity.principal

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Settle who this is; over the bounds it is closed before it is served."""
        assert isinstance(transport, asyncio.Transport)
        if self._prove is None:
            self.identity = self._socket_is or Identity(peer_principal(transport.get_extra_info("socket")))
        if not self._take_place(UNASKED if self._prove is not None else self.principal):
            transport.abort()
        elif self._prove is None:
            self._begin(transport)
        else:
            self._asking = self._clock.create_task(self._ask(transport, self._prove))
            self._gate.asking.add(self._asking)
            self._asking.add_done_callback(self._gate.asking.discard)

    def _begin(self, transport: asyncio.Transport) -> None:
        read_in_blocks(transport)
        self._served = True
        self._socket = transport.get_extra_info("socket").fileno()
        super().connection_made(transport)
        self.rest()

    def _take_place(self, principal: str | None) -> bool:
        """Count the connection as a principal's; False when that, or all of them, have as many as they may.

        Those for whom there is nothing here share one principal's places: a user may have thousands of uids.
        """
        gate = self._gate
        self._give_place()
        if principal != UNASKED and not gate.knows(self.listener, principal):
            principal = None
        held, limits = gate.held, gate.limits
        if held.total() >= limits.max_connections or held[principal] >= limits.max_connections_per_principal:
            return False
        if _is_bottle(principal) and sum(held[who] for who in held if _is_bottle(who)) >= limits.max_connections // 2:
            return False  # however many bottles there are, they keep nobody else out
        gate.held[principal] += 1
        self._counted, self._counted_as = True, principal
        return True

    def _give_place(self) -> None:
        held = self._gate.held
        if self._counted:
            self._counted = False
            held[self._counted_as] -= 1
            if not held[self._counted_as]:
                del held[self._counted_as]

    async def _ask(self, transport: asyncio.Transport, prove: Prove) -> None:
        """Settle who this is before anything is read, and look again and again whether it still is."""
        transport.pause_reading()  # here: Python 3.11.2 takes no such word in connection_made
        connection = transport.get_extra_info("socket")
        identity = await prove(connection)
        if not self._take_place(identity.principal):
            transport.abort()
            return
        self.identity = identity
        self._begin(transport)
        transport.resume_reading()
        while identity.principal is not None:
            await asyncio.sleep(REASK_S)
            again = await prove(connection)
            if again.passing:
                again = await prove(connection)
            if again is NOBODY:  # it went away, and nobody has read so far as to see that
                transport.abort()
                return
            if again != identity:
                self._revoke(again, transport)
                return

    def _revoke(self, identity: Identity, transport: asyncio.Transport) -> None:
        """End what runs for a connection that is no longer who it was; nothing more is done for it."""
        was, self.identity = self.principal, Identity(None, identity.why or "the connection has changed hands")
        error = self._gate.revoked(self.listener, was, identity)
        self.close()
        if self.on_revoked is not None:
            self.on_revoked(error)
        elif self.on_left is not None:
            self.on_left()
        else:
            transport.abort()
        self._clock.call_later(REVOKED_S, transport.abort)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads the answer; aiohttp never keeps one open
        """Half a close ends what runs for this connection, and its caller waits to hear so; else it is a close."""
        if self.on_left is None:
            return False
        self.close()
        self.on_left()
        return True

    def _pause_transport_reading(self) -> None:
        """Input waits for who takes it; the end of the connection, which comes after it, is looked for meanwhile."""
        super()._pause_transport_reading()
        if self._socket >= 0:
            self._gate.hang_ups.watch(self._socket, self._gone)

    def _resume_transport_reading(self) -> None:
        self._read_on()
        super()._resume_transport_reading()

    def _read_on(self) -> None:
        self._gate.hang_ups.forget(self._socket)
        if self._gone_look is not None:
            self._gone_look.cancel()
            self._gone_look = None

    def _gone(self) -> None:
        """The peer has gone, or closed its half, behind input that nobody takes: as in `eof_received`."""
        self._gone_look = None
        if self.on_left is None:  # what it sent is still being read
            self._gone_look = self._clock.call_later(GONE_LOOK_S, self._gone)
            return
        self.close()
        self.on_left()

    def rest(self) -> None:
        """No request is under way: the next must be whole within the idle time, however its bytes drip in."""
        self.busy = False
        if self._idle is not None:
            self._idle.cancel()
        if self._counted:
            self._idle = self._clock.call_later(self._gate.limits.idle_timeout_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        transport = self.transport
        if not self.busy and transport is not None:
            self.force_close()
            if transport.get_write_buffer_size():  # what is unread keeps it open
                self._clock.call_later(self._gate.limits.stall_timeout_s, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back; aiohttp cancels what runs for it."""
        if self._idle is not None:
            self._idle.cancel()
        if self._asking is not None:
            self._asking.cancel()
        self._read_on()
        self._socket = -1
        self._give_place()
        if self._served:
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
        say(f"{kind} while serving {self.principal} on {self.listener}")


def _is_bottle(principal: str | None) -> bool:
    return principal is not None and principal.startswith(BOTTLE)
