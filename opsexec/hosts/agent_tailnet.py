"""Reaching an agent over the tailnet: which node a name means, who really is at its address, and a connection to it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from opsexec.errors import ConnectionLost, HostUnreachable, OpsError, UsageError
from opsexec.hosts.agent_link import AgentLink
from opsexec.hosts.local_api import DEFAULT_LOCAL_API, HOST, LocalApi, TailnetUnavailable
from opsexec.hosts.tailnet_node import Address, Nobody, endpoint, tailnet_address, whois
from opsexec.hosts.tailnet_status import Peer, Status, status

DEFAULT_PORT = 7227
SOCKET_VARIABLE = "OPSEXEC_TAILSCALED_SOCKET"
"""Names the socket of another tailscaled than the machine's own."""

CONNECT_S = 10.0
"""Seconds for tailscaled to say where a node is, and to reach one that isn't online by the control server's word."""
WAKE_S = 45.0
"""Seconds to reach one that is. After minutes without traffic, or once tailscaled was started again there, WireGuard
may send with keys that the other side doesn't have: it makes new ones after 15 s without an answer, or when the old
ones are 180 s old (its whitepaper, section 6)."""
AGAIN_S = 4.0
"""Seconds until a connection that isn't made yet gets another beside it: TCP itself asks again ever more rarely."""
KNOWN_S = 15.0
"""Seconds that a node's address and name are taken as they were found."""

MAX_HEAD = 16 << 10
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?\.?\Z")


class TailnetHost(NamedTuple):
    """What a URL asks for: a node by `name`, or by `address`; the other is None."""

    name: str | None
    address: Address | None
    port: int

    @classmethod
    def parse(cls, url: str) -> TailnetHost:
        """Parse `tailnet://name[:port]` or `agent+tcp://address:port`; raises UsageError."""
        scheme, _, rest = url.partition("://")
        host, port = _host_and_port(rest.rstrip("/"), url)
        if scheme == "tailnet":
            if not _NAME.match(host) or tailnet_address(host):
                raise UsageError(f"{url!r} names no node", hint="like tailnet://web1; agent+tcp:// takes an address")
            return cls(host, None, port)
        address = tailnet_address(host)
        if address is None:
            text = (
                f"{url!r} is not at a tailnet address (100.64.0.0/10, fd7a:115c:a1e0::/48): nobody proves who is there"
            )
            raise UsageError(text, hint="use tailnet://name, or agent+ssh://[user@]host")
        return cls(None, address, port)

    @property
    def label(self) -> str:
        """How errors and the audit call it."""
        return self.name or str(self.address)


def _host_and_port(text: str, url: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/]+)(?::([1-9][0-9]{0,4}))?", text)
    if found is None or int(found[2] or 1) > 65535:
        raise UsageError(
            f"{url!r} is not host[:port]", hint=f"like tailnet://web1 or agent+tcp://100.64.0.3:{DEFAULT_PORT}"
        )
    return found[1].strip("[]"), int(found[2] or DEFAULT_PORT)


class _Found(NamedTuple):
    node: Peer
    address: Address
    status: Status
    at: float


class TailnetWay:
    """Through the tailnet. `socket`: this machine's tailscaled, which says who is where; None = the usual one.

    With a TUN device the connection is made here, and must leave from this node's own tailnet address; without one
    (userspace networking) tailscaled makes it (LocalAPI `dial`, as `tailscale nc` does), and closes both directions
    as soon as one is closed.
    """

    half_closes = True

    def __init__(self, wanted: TailnetHost, socket: str | None = None) -> None:
        self._wanted = wanted
        self._api = LocalApi(socket or os.environ.get(SOCKET_VARIABLE) or DEFAULT_LOCAL_API)
        self._found: _Found | None = None

    async def open(self, host: str) -> AgentLink:
        """Find the node, have tailscaled say who is at its address, and connect; raises HostUnreachable.

        Finding it takes CONNECT_S seconds at most, and so does connecting; WAKE_S to a node that is online.
        """
        within_s = CONNECT_S
        try:
            async with asyncio.timeout(within_s) as deadline:
                found = await self._find()
                within_s = WAKE_S if found.node.online else CONNECT_S
                deadline.reschedule(asyncio.get_running_loop().time() + within_s)
                way = self._connect if found.status.kernel else self._dial
                return await self._first(lambda: way(host, found))
        except TimeoutError as error:
            hint = "is the node online, does ops-agent listen on tailnet: there, does the tailnet's policy let you?"
            raise HostUnreachable(f"no connection within {within_s:g} s", host=host, hint=hint) from error
        except OpsError as error:
            error.host = error.host or host
            raise

    async def aclose(self) -> None:
        """Nothing lies under it."""

    async def _find(self) -> _Found:
        now = asyncio.get_running_loop().time()
        if self._found is not None and now - self._found.at < KNOWN_S:
            return self._found
        seen = await status(self._api)
        node = self._named(seen)
        if node.id == seen.self.id:
            raise UsageError(f"{node.name} is this machine itself", hint="use agent+unix:// for its agent")
        address = self._wanted.address or next(iter(node.addresses), None)
        if address is None:
            raise HostUnreachable(f"{node.name} has no tailnet address")
        try:
            proven = await whois(self._api, address, self._wanted.port)
        except Nobody as nobody:
            raise HostUnreachable(
                f"not a host of this tailnet: {nobody}", hint="`tailscale whois` says more"
            ) from nobody
        if proven.id != node.id or proven.name != node.name or address not in proven.addresses:
            raise HostUnreachable(f"{address} is {proven.name or proven.id}'s, not {node.name}'s")
        self._found = _Found(node, address, seen, now)
        self.half_closes = seen.kernel
        return self._found

    def _named(self, seen: Status) -> Peer:
        if self._wanted.name is not None:
            return seen.find(self._wanted.name)
        for peer in (seen.self, *seen.peers):
            if self._wanted.address in peer.addresses:
                return peer
        raise HostUnreachable(
            f"no node of the tailnet has {self._wanted.address}", hint="`tailscale status` lists them"
        )

    async def _first(self, connect: Callable[[], Coroutine[Any, Any, AgentLink]]) -> AgentLink:
        """Connect, and again beside it every AGAIN_S seconds: the first that is made, or that fails, is the answer."""
        tries: set[asyncio.Task[AgentLink]] = set()
        done: set[asyncio.Task[AgentLink]] = set()
        try:
            while not done:
                tries.add(asyncio.create_task(connect()))
                done, _ = await asyncio.wait(tries, timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            taken = done.pop()
            tries.remove(taken)
            return taken.result()
        finally:
            await _given_up(tries)

    async def _connect(self, host: str, found: _Found) -> AgentLink:
        loop = asyncio.get_running_loop()
        try:
            transport, link = await loop.create_connection(
                lambda: AgentLink(host), str(found.address), self._wanted.port
            )
        except OSError as error:
            raise self._refused(found, os.strerror(error.errno) if error.errno else str(error)) from error
        here = tailnet_address(str(transport.get_extra_info("sockname")[0]))
        if here not in found.status.self.addresses:
            astray = HostUnreachable(f"the way to {found.address} doesn't lead through the tailnet", host=host)
            link.abort(astray)
            raise astray
        return link

    async def _dial(self, host: str, found: _Found) -> AgentLink:
        loop = asyncio.get_running_loop()
        try:
            transport, dial = await loop.create_unix_connection(Dial, self._api.path)
        except OSError as error:
            text = f"tailscaled at {self._api.path} can't be reached"
            raise TailnetUnavailable(text, hint="is tailscaled running?") from error
        try:
            self._api.require_trusted(transport.get_extra_info("socket"))
            head = (
                f"POST /localapi/v0/dial HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n"
                f"Dial-Network: tcp\r\nDial-Host: {found.address}\r\nDial-Port: {self._wanted.port}\r\n"
                "Content-Length: 0\r\n\r\n"
            )
            transport.write(head.encode("ascii"))
            status_line = await dial.answered
            if not status_line.startswith("HTTP/1.1 101 "):
                raise self._refused(found, "tailscaled could not connect")
        except BaseException:  # a cancellation as well: nobody else holds the dial
            transport.abort()
            raise
        link = AgentLink(host)
        transport.set_protocol(link)
        link.connection_made(transport)
        if transport.is_closing() or dial.lost:
            closed = ConnectionLost("the connection was closed as it was made", host=host)
            link.abort(closed)
            raise closed
        return link

    def _refused(self, found: _Found, reason: str) -> HostUnreachable:
        hint = "does ops-agent listen on tailnet: there, and does the tailnet's policy let you?"
        return HostUnreachable(f"can't connect to {endpoint(found.address, self._wanted.port)}: {reason}", hint=hint)


async def _given_up(tries: set[asyncio.Task[AgentLink]]) -> None:
    """End connections that nobody waits for any more, also those that were made by now."""
    for each in tries:
        each.cancel()
    for outcome in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(outcome, AgentLink):
            outcome.abort(ConnectionLost("another connection was made first"))


class Dial(asyncio.Protocol):
    """Reads the head of the answer to a dial; what comes after it is the connection's own."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.lost = False
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """Take bytes until the head is whole; an agent says nothing first, so nothing may follow it."""
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if self.answered.done():
            return
        if rest and head.startswith(b"HTTP/1.1 101 "):
            self._fail("bytes before anything was asked for")
        elif end or len(self._head) > MAX_HEAD:
            self.answered.set_result(head.partition(b"\r\n")[0].decode("latin-1"))

    def connection_lost(self, exc: Any) -> None:
        """It went away before it was made."""
        self.lost = True
        if not self.answered.done():
            self._fail("tailscaled closed the connection")

    def _fail(self, text: str) -> None:
        self.answered.set_exception(HostUnreachable(text))
        self.answered.exception()  # who dials may have given up before it asked for the answer
