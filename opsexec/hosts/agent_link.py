"""One connection to ops-agent: requests go out, one at a time; the answer's pieces go to whoever asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from opsexec.errors import ConnectionLost, OpsError, ProtocolError
from opsexec.hosts.agent_http import AnswerParser
from opsexec.hosts.reading import read_in_blocks
from opsexec.wire import VERSION_HEADER, require_same_major


class Transport(Protocol):
    """What a link needs of what carries it: a socket's transport, or an SSH channel."""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...


class AgentLink(asyncio.Protocol):
    """The caller's end of one connection. Its callbacks are an asyncio protocol's, and an SSH channel's too."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._transport: Transport | None = None
        self._parser: AnswerParser | None = None
        self._on_end: Callable[[OpsError | None], None] | None = None
        self._ended = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._held = False
        self.lost: OpsError | None = None
        self.gone = asyncio.Event()
        self.idle_since = 0.0
        self.heard_at = 0.0
        self._clock = asyncio.get_running_loop().time

    # -- what the transport calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take the transport."""
        read_in_blocks(transport)
        self._transport = transport

    def data_received(self, data: bytes, datatype: object = None) -> None:
        """Hand the answer's bytes to its parser; bytes that nobody asked for end the link."""
        self.heard_at = self._clock()
        parser = self._parser
        try:
            if parser is None:
                raise ProtocolError("bytes that nobody asked for", host=self._host)
            parser.feed(data)
        except OpsError as error:
            error.host = error.host or self._host
            self.abort(error)
            return
        if parser.done:
            self._finish()

    def eof_received(self) -> bool:
        """The agent closed its end."""
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell who waits."""
        self.gone.set()
        text = "the connection to the agent was lost; whether its step finished is unknown"
        self._fail(ConnectionLost(text, host=self._host, hint="look, then resume"))

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has room again."""
        self._room.set()

    # -- what the caller calls --------------------------------------------------------------------------------------

    def ask(
        self,
        data: bytes,
        on_head: Callable[[int, Mapping[str, str]], None],
        on_body: Callable[[bytes | memoryview], None],
        on_end: Callable[[OpsError | None], None],
    ) -> None:
        """Send the beginning of a request; `on_end` is told when the whole answer is read, or why it isn't."""
        assert self._transport is not None
        assert self._parser is None

        def head(status: int, headers: Mapping[str, str]) -> None:
            require_same_major(headers.get(VERSION_HEADER.lower()))
            on_head(status, headers)

        self._parser = AnswerParser(head, on_body)
        self._ended.clear()
        self._on_end = on_end
        self.heard_at = self._clock()
        if self.lost is not None:
            self._end(self.lost)
        else:
            self._transport.write(data)

    async def send(self, data: bytes) -> None:
        """Send more of the request, when there is room; lets others have the loop, as input may never wait itself."""
        await asyncio.sleep(0)
        await self._room.wait()
        if self.lost is None and self._transport is not None:
            self._transport.write(data)

    def hold(self) -> None:
        """Read no more for now."""
        if not self._held and self._transport is not None and self.lost is None:
            self._held = True
            self._transport.pause_reading()

    def release(self) -> None:
        """Read again."""
        if self._held and self._transport is not None:
            self._held = False
            self.heard_at = self._clock()
            if self.lost is None:
                self._transport.resume_reading()

    @property
    def held(self) -> bool:
        """True while the caller, not the agent, is what is waited for."""
        return self._held

    @property
    def reusable(self) -> bool:
        """True when the next request may go out on it."""
        return self.lost is None and self._parser is None and not self._held

    async def leave(self, within_s: float) -> bool:
        """Tell the agent to end what it does for this link, wait until it has, and drop the link; False: it didn't say.

        Half a close is how it is told: the other half still brings its answer, which nobody reads any more.
        """
        if self._on_end is None or self.lost is not None:
            self.abort(ConnectionLost("left by the caller", host=self._host))
            return True
        assert self._transport is not None
        self.release()
        self._transport.write_eof()
        try:
            async with asyncio.timeout(within_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        finally:
            self.abort(ConnectionLost("left by the caller", host=self._host))
        return True

    def abort(self, error: OpsError) -> None:
        """Drop the connection: the agent ends what it runs for it."""
        self._fail(error)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: OpsError) -> None:
        self.lost = self.lost or error
        self._room.set()
        self._parser = None
        self._end(error)

    def _finish(self) -> None:
        parser, self._parser = self._parser, None
        self.idle_since = self._clock()
        self._end(None)
        if parser is not None and not parser.keeps_alive:
            self.abort(ConnectionLost("the agent closed the connection", host=self._host))

    def _end(self, error: OpsError | None) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self._ended.set()
            on_end(error)
