"""`Engine`: calls to a container engine, by hand or by the `docker` package: in threads, bounded in time and size."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from opsexec.engine.calls import ODD, Calls, Refusal
from opsexec.engine.place import engine_socket
from opsexec.errors import HostUnsuitable, OpsError, ProtocolError, StepFailed, StepTimeout
from opsexec.hosts.aside import Aside

if TYPE_CHECKING:
    import docker

    from opsexec.hosts.port import Host

T = TypeVar("T")
CALL_S = 120.0
"""Seconds that an engine may take to answer a call: to start a container on a busy disk takes tens of them."""
SETTLE_S = 5.0
"""Seconds that a thread gets to come back once its connection is cut."""
MAX_ANSWER = 64 << 20
"""Bytes of an answer: a thousand containers with all their labels are about 5 MB."""


class EngineRefused(StepFailed):
    """The engine said no. `status`: its HTTP status."""

    code = "engine"

    def __init__(self, text: str, status: int, *, host: str | None = None, hint: str | None = None) -> None:
        super().__init__(text, host=host, hint=hint)
        self.status = status


class Engine:
    """One host's engine, for one step. `near`, `path`: its socket on this machine, and on the host."""

    def __init__(self, near: str, path: str, host: str) -> None:
        self.near = near
        self.path = path
        self.host = host
        self._aside = Aside()
        self._sockets: list[_Counted] = []
        self.on_cut: list[Callable[[], None]] = []
        """What else a thread may wait for is let go by these."""
        self._client: docker.APIClient | None = None
        self.version = ""

    async def ask(self, call: Callable[[Calls], T], within_s: float | None = None) -> T:
        """Return what a call answers within so many seconds, None = CALL_S, and with MAX_ANSWER bytes at most.

        Raises EngineRefused; HostUnsuitable, StepTimeout, ProtocolError for an engine that isn't there, hangs, or
        doesn't answer as one. Cancelling, and being late, end the call: its connection is cut.
        """
        return await self._asked(lambda: self._by_hand(call), within_s or CALL_S)

    async def ask_package(self, call: Callable[[docker.APIClient], T], within_s: float | None = None) -> T:
        """As `ask`, for a call that is the `docker` package's."""
        return await self._asked(lambda: self._by_package(call, MAX_ANSWER), within_s or CALL_S)

    async def carry(self, call: Callable[[docker.APIClient], T]) -> T:
        """As `ask_package`, for one that carries a stream: as long as the step may, and as much as it counts itself."""
        return await self._asked(lambda: self._by_package(call, None), None)

    async def _asked(self, call: Callable[[], T], within_s: float | None) -> T:
        asked = asyncio.ensure_future(self._aside.do(call))
        asked.add_done_callback(_looked_at)  # who is cancelled twice waits for it no more, and nobody is to print it
        try:
            async with asyncio.timeout(within_s) as deadline:
                return await asyncio.shield(asked)
        except TimeoutError as error:
            await self._given_up(asked)
            if not deadline.expired():
                raise
            text = f"the container engine at {self.path} gave no answer within {within_s:g} s"
            raise StepTimeout(text, host=self.host, hint="is dockerd stuck? see its log") from error
        except asyncio.CancelledError:
            await self._given_up(asked)
            raise

    async def _given_up(self, asked: asyncio.Future[T]) -> None:
        """Cut the call off, and let its thread come back."""
        self.cut()
        await asyncio.wait([asked], timeout=SETTLE_S)
        asked.cancel()

    def _by_hand(self, call: Callable[[Calls], T]) -> T:
        """In a thread of its own."""
        try:
            calls = Calls(self._lent, self.version)
            self.version = calls.version
            return call(calls)
        except Refusal as error:
            raise self._refused(error.text, error.status) from error
        except (OSError, http.client.IncompleteRead) as error:
            raise self._unreachable(error) from error
        except ODD as error:
            raise self._odd(error) from error

    def _by_package(self, call: Callable[[docker.APIClient], T], limit: int | None) -> T:
        """In a thread of its own."""
        try:
            import docker.errors
            import requests.exceptions
            import urllib3.exceptions
        except ImportError as error:
            hint = 'install "opsexec[docker]" there'
            raise HostUnsuitable("the docker package is not installed", host=self.host, hint=hint) from error
        if not self.version:
            self._by_hand(lambda calls: None)
        try:
            if self._client is None:
                self._client = self._connected()
            for each in list(self._sockets):
                each.limit = limit
                each.taken = 0
            return call(self._client)
        except docker.errors.APIError as error:
            said = error.explanation if isinstance(error.explanation, str) else str(error)
            raise self._refused(said, error.status_code or 0) from error
        except (requests.exceptions.RequestException, docker.errors.DockerException, OSError) as error:
            raise self._unreachable(error) from error
        except (*ODD, urllib3.exceptions.HTTPError) as error:
            raise self._odd(error) from error

    def _connected(self) -> docker.APIClient:
        import docker

        from opsexec.engine.transport import Adapter

        client = docker.APIClient(base_url=f"unix://{self.near}", version="1.41", timeout=CALL_S)
        client.mount("http+docker://", Adapter(self.near, CALL_S, self._counted))
        client.trust_env = False
        client._auth_configs = docker.auth.AuthConfig({})  # a build would hand every registry's password to the engine
        client._version = self.version  # as version="auto" does, but asked over a connection that can be cut
        return client

    @contextmanager
    def _lent(self) -> Iterator[socket.socket]:
        """Lend a connection for one call."""
        made = self._counted()
        try:
            made.settimeout(CALL_S)
            made.connect(self.near)
            yield made
        finally:
            made.close()
            self._sockets.remove(made)

    def _counted(self) -> _Counted:
        made = _Counted(socket.AF_UNIX, socket.SOCK_STREAM)
        made.limit = MAX_ANSWER
        self._sockets.append(made)
        return made

    def _refused(self, said: str, status: int) -> OpsError:
        text = "".join(letter if letter.isprintable() else " " for letter in said.strip())[:400]
        return EngineRefused(f"the container engine says: {text}", status, host=self.host)

    def _odd(self, error: Exception) -> OpsError:
        text = f"what listens at {self.path} doesn't answer as a container engine does ({type(error).__name__})"
        return ProtocolError(text, host=self.host, hint="is that docker's socket?")

    def _unreachable(self, error: Exception) -> OpsError:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, _TooMuch):
            inner = inner.__context__
        if inner is not None:
            text = f"the container engine's answer is over {MAX_ANSWER} bytes"
            return ProtocolError(text, host=self.host, hint="is that docker's socket?")
        reason = _first_reason(error)
        text = f"the container engine at {self.path} can't be reached or broke off: {reason}"
        return HostUnsuitable(text, host=self.host, hint="is dockerd running, and may this user open its socket?")

    def cut(self) -> None:
        """Cut every connection: a thread that waits for an answer gets an error in its place."""
        for let_go in self.on_cut:
            let_go()
        for each in list(self._sockets):  # a thread that comes back takes its own out
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the engine."""
        self.cut()
        client, self._client = self._client, None
        if client is not None:
            client.close()
        for each in list(self._sockets):
            if (number := each.detach()) >= 0:  # close() would leave it to an answer that nobody reads to its end
                os.close(number)
        self._aside.close()


class _TooMuch(OSError):
    """More was answered than may be."""


class _Counted(socket.socket):
    """A socket that takes a bounded number of bytes. `limit`: None = any."""

    limit: int | None = None
    taken = 0

    def recv_into(self, *args: Any, **named: Any) -> int:
        """As a socket does."""
        size = super().recv_into(*args, **named)
        self.taken += size
        if self.limit is not None and self.taken > self.limit:
            raise _TooMuch("the answer has no end")
        return size


def _looked_at(asked: asyncio.Future[Any]) -> None:
    if not asked.cancelled():
        asked.exception()


def _first_reason(error: BaseException) -> str:
    """Return what the kernel said, where it was the kernel."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__context__
    return type(error).__name__


@asynccontextmanager
async def engine_of(host: Host) -> AsyncIterator[Engine]:
    """Lend the engine of a host; raises as `engine_socket` does."""
    async with engine_socket(host) as (near, path):
        engine = Engine(near, path, host.name)
        try:
            yield engine
        finally:
            engine.close()
