"""A host behind ops-agent: a bounded pool of links, over a unix socket here or one reached through SSH."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NoReturn, Protocol

from opsexec.errors import ConnectionLost, HostUnreachable, UsageError
from opsexec.hosts.agent_link import AgentLink

if TYPE_CHECKING:
    from opsexec.executor import TtySession
    from opsexec.hosts.port import ProcessExit, ProcessSpec, SyncPlan, SyncResult
    from opsexec.recorder import Recorder

MAX_LINKS = 16
"""Requests under way at once; more wait here, not at the agent."""

IDLE_S = 20.0
"""Seconds a link may wait for the next request; the agent's own limit is longer, so that it never closes first."""

CONNECT_S = 10.0
AGAIN_S = 0.005
GONE_S = 2.0
"""Seconds in which links that were dropped may say that they are gone, when the host is closed."""


class Way(Protocol):
    """How links to one agent are opened. `half_closes`: a link can end one direction and still bring an answer."""

    half_closes: bool

    async def open(self, host: str) -> AgentLink:
        """Open one; raises HostUnreachable."""
        ...

    async def aclose(self) -> None:
        """Let go of what carries them."""
        ...


class UnixWay:
    """Through a unix socket of this machine."""

    half_closes = True

    def __init__(self, path: str) -> None:
        self.path = path

    async def open(self, host: str) -> AgentLink:
        """Connect; raises HostUnreachable."""
        try:
            async with asyncio.timeout(CONNECT_S):
                opened = await _connected(self.path)
                _, link = await asyncio.get_running_loop().create_unix_connection(lambda: AgentLink(host), sock=opened)
        except TimeoutError as error:
            raise HostUnreachable(f"no answer within {CONNECT_S:g} s", host=host, hint="is the agent hung?") from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            hint = "is ops-agent running, and may this user open its socket?"
            raise HostUnreachable(f"can't connect to {self.path}: {reason}", host=host, hint=hint) from error
        return link

    async def aclose(self) -> None:
        """Nothing lies under it."""


async def _connected(path: str) -> socket.socket:
    """Return a connected socket; an agent that has no room for one more this moment is asked again.

    connect() says EAGAIN then (unix(7)), which asyncio takes for "under way", and the connection for made.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        while True:
            try:
                opened.connect(path)
                return opened
            except BlockingIOError:
                await asyncio.sleep(AGAIN_S)
    except BaseException:  # a cancellation as well: nobody else holds the socket
        opened.close()
        raise


class AgentHost:
    """A machine whose agent is asked for whole steps. Implements the Host port as far as that makes sense."""

    def __init__(self, name: str, way: Way) -> None:
        self._name = name
        self._way = way
        self._idle: list[AgentLink] = []
        self._used: set[AgentLink] = set()
        self._free = asyncio.Semaphore(MAX_LINKS)

    @property
    def name(self) -> str:
        """How errors name it."""
        return self._name

    @property
    def way(self) -> Way:
        """How links to it are opened."""
        return self._way

    @asynccontextmanager
    async def link(self) -> AsyncIterator[AgentLink]:
        """Lend a link for one request; one that is left unfit for the next is dropped."""
        async with self._free:
            link = self._warm() or await self._way.open(self._name)
            self._used.add(link)
            try:
                yield link
            finally:
                self._used.discard(link)
                if link.reusable:
                    self._idle.append(link)
                else:
                    link.abort(ConnectionLost("left by the caller", host=self._name))

    def _warm(self) -> AgentLink | None:
        """Return the link that was used last, if it is still good."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            link = self._idle.pop()
            if link.reusable and now - link.idle_since < IDLE_S:
                return link
            link.abort(ConnectionLost("idle for too long", host=self._name))
        return None

    async def run_process(
        self, spec: ProcessSpec, recorder: Recorder, stdin: AsyncIterator[bytes] | None = None
    ) -> ProcessExit:
        """Refuse: the agent decides what a step's process is."""
        self._whole_steps()

    async def call(self, operation: str, args: Sequence[bytes], *, run_as: str | None = None) -> list[bytes]:
        """Refuse: the agent decides what a step's operations are."""
        self._whole_steps()

    def _whole_steps(self) -> NoReturn:
        raise UsageError("an agent is asked for whole steps", host=self._name, hint="use AgentRpc.run()")

    async def sync(self, plan: SyncPlan) -> SyncResult:
        """Refuse: the agent decides where a step's copy goes."""
        self._whole_steps()

    async def open_tty(self, spec: ProcessSpec, term: str, columns: int, rows: int) -> TtySession:
        """Refuse: the agent decides what a terminal's process is."""
        self._whole_steps()

    async def aclose(self) -> None:
        """Drop every link: the agent ends what it runs for them."""
        links = (*self._idle, *self._used)
        self._idle.clear()
        for link in links:
            link.abort(ConnectionLost("the executor was closed", host=self._name))
        with suppress(TimeoutError):  # a frozen sshd never says that a channel is gone: its connection is dropped below
            async with asyncio.timeout(GONE_S):
                for link in links:
                    await link.gone.wait()
        await self._way.aclose()
