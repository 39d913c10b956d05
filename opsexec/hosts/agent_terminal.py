"""A terminal that an agent holds the other end of: keys and sizes go out in frames, the screen comes back in them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from opsexec.digest import differ
from opsexec.errors import ConnectionLost, ProtocolError
from opsexec.executor import RunOutput
from opsexec.hosts.agent_exchange import Exchange, request_head
from opsexec.hosts.agent_http import LAST_CHUNK, chunk
from opsexec.hosts.far_terminal import Screen
from opsexec.recorder import Recorder
from opsexec.wire import FROM_TERMINAL, MAX_BULK_FRAME, NOTE, RESIZE, SCREEN, SIZE, STDIN, STDIN_END, Result, frame

if TYPE_CHECKING:
    from opsexec.hosts.agent_host import AgentHost
    from opsexec.hosts.agent_link import AgentLink

KEYS_BYTES = 64 << 10
"""Keys that wait to be sent above which `write` waits too."""

CLOSE_S = 5.0
"""Seconds the agent gets to end a terminal, before the link is dropped and it does so unheard."""

MAX_NOTE = 1000


class TerminalExchange(Exchange):
    """An exchange whose input is frames already, and whose answer says more than output."""

    kinds = FROM_TERMINAL

    def __init__(self, link: AgentLink, host: str, recorder: Recorder) -> None:
        super().__init__(link, host, recorder)
        self.on_note: Callable[[str], None] | None = None
        self.on_size: Callable[[int, int], None] | None = None

    def _take(self, kind: int, data: bytes) -> None:
        if kind == NOTE:
            if self.on_note is not None:
                self.on_note(data[:MAX_NOTE].decode("utf-8", "replace"))
        elif kind == SCREEN:
            if len(data) != SIZE.size:
                raise ProtocolError("a screen's size is two numbers of two bytes", host=self._host)
            if self.on_size is not None:
                self.on_size(*SIZE.unpack(data))
        else:
            super()._take(kind, data)

    async def _feed(self, stdin: AsyncIterator[bytes]) -> None:
        async for each in stdin:
            await self._link.send(chunk(each))
        await self._link.send(chunk(frame(STDIN_END)) + LAST_CHUNK)


class AgentTerminal:
    """Implements TtySession over one link to an agent. `on_note` is told what the agent itself has to say."""

    def __init__(
        self,
        host: AgentHost,
        request: bytes,
        *,
        run: str,
        timeout_s: float | None,
        max_output_bytes: int | None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self._host = host
        self._request = request
        self._run = run
        self._timeout_s = timeout_s
        self._on_note = on_note
        self._screen = Screen()
        self._recorder = Recorder(self._screen, limit_bytes=max_output_bytes)
        self._typed: deque[bytes] = deque()
        self._waiting = 0
        self._size: tuple[int, int] | None = None
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._link: AgentLink | None = None
        self._closed = False
        self._given_up: ConnectionLost | None = None
        self._begun = time.monotonic()
        self._ending = asyncio.create_task(self._follow())
        self._ending.add_done_callback(self._over)

    def _over(self, ending: asyncio.Task[RunOutput]) -> None:
        self._screen.end()
        self._room.set()
        if not ending.cancelled():
            ending.exception()  # asked for in `wait`; nobody has to

    async def _follow(self) -> RunOutput:
        try:
            return await self._carry()
        except asyncio.CancelledError:
            if self._given_up is None:
                raise
            raise self._given_up from None

    async def _carry(self) -> RunOutput:
        async with self._host.link() as link:
            self._link = link
            exchange = TerminalExchange(link, self._host.name, self._recorder)
            exchange.on_note = self._on_note
            whole = request_head("POST", "/v1/tty", None) + chunk(self._request)
            try:
                end = await exchange.run(whole, self._frames(), self._timeout_s)
                self._screen.take_all()
                await self._recorder.finish()
            except BaseException:  # a cancellation as well: the screen is told no more
                self._recorder.abandon()
                raise
        if not isinstance(end, Result):
            raise ProtocolError("the agent's answer is not a terminal's end", host=self._host.name)
        lost = end.stdout_bytes != self._recorder.counts[0] or differ(end.digest, self._recorder.digest)
        if lost and not self._closed:
            text = f"the agent says {end.stdout_bytes} bytes were on the screen, {self._recorder.counts[0]} came"
            raise ProtocolError(text, host=self._host.name, hint="part of the output was lost or changed on the way")
        return RunOutput(
            run=self._run,
            host=self._host.name,
            exit_code=end.exit_code,
            signal=end.signal,
            duration_s=time.monotonic() - self._begun,
            stdout_bytes=end.stdout_bytes,
            digest=end.digest,
            truncated=self._recorder.truncated,
            changed=True,
        )

    async def _frames(self) -> AsyncIterator[bytes]:
        """Yield what goes out. Its end is how the agent is told to end the terminal."""
        while True:
            await self._more.wait()
            self._more.clear()
            if self._closed:
                return
            while self._typed or self._size is not None:
                if self._size is not None:
                    size, self._size = self._size, None
                    yield frame(RESIZE, SIZE.pack(*size))
                    continue
                data = self._typed.popleft()
                yield frame(STDIN, data)
                self._waiting -= len(data)
                if self._waiting < KEYS_BYTES:
                    self._room.set()

    async def read(self) -> bytes:
        """Return the next block of output; empty at the end."""
        return await self._screen.read()

    async def write(self, data: bytes) -> None:
        """Send keystrokes; waits while the program doesn't take them."""
        for at in range(0, len(data), MAX_BULK_FRAME):
            await self._room.wait()
            if self._closed or self._ending.done():
                return
            piece = data[at : at + MAX_BULK_FRAME]
            self._typed.append(piece)
            self._waiting += len(piece)
            if self._waiting >= KEYS_BYTES:
                self._room.clear()
            self._more.set()

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program its new size, in characters."""
        self._size = (columns, rows)
        self._more.set()

    async def wait(self) -> RunOutput:
        """Wait for the program to end."""
        return await asyncio.shield(self._ending)

    async def aclose(self) -> None:
        """End the program and all it started; returns when the agent has said that it did."""
        self._closed = True
        self._screen.drop()
        self._room.set()
        self._more.set()
        over, _ = await asyncio.wait([self._ending], timeout=CLOSE_S)
        if not over:
            self._abort()
            await asyncio.wait([self._ending])

    def _abort(self) -> None:
        if self._link is not None:
            text = f"the agent didn't say within {CLOSE_S:g} s that the terminal has ended"
            self._link.abort(ConnectionLost(text, host=self._host.name, hint="look whether it has"))
        else:
            text = "the terminal was closed before the agent was reached; nothing was begun"
            self._given_up = ConnectionLost(text, host=self._host.name, hint="is the agent overloaded, or frozen?")
            self._ending.cancel()
