"""One step over one link: its request and input go out, its output goes to the recorder, its end comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from opsexec.errors import ConnectionLost, LimitExceeded, OpsError, ProtocolError
from opsexec.hosts.agent_http import LAST_CHUNK, chunk
from opsexec.wire import (
    BEAT_S,
    ERR,
    ERROR,
    FRAMES_TYPE,
    FROM_AGENT,
    MAX_ANSWER_FRAME,
    MAX_BULK_FRAME,
    OUT,
    PROTOCOL,
    RESULT,
    STARTED,
    STDIN,
    STDIN_END,
    VERSION_HEADER,
    FrameParser,
    Result,
    decode_result,
    frame,
)
from opsexec.wire_errors import decode_error

if TYPE_CHECKING:
    from opsexec.hosts.agent_link import AgentLink
    from opsexec.recorder import Recorder

SILENCE_S = 4 * BEAT_S
"""Seconds without a byte after which an agent counts as gone: it beats every BEAT_S."""

_COMMON = f"Host: ops-agent\r\n{VERSION_HEADER}: {PROTOCOL}\r\nAccept: {FRAMES_TYPE}\r\n"


def request_head(method: str, target: str, length: int | None = 0) -> bytes:
    """Return a request's head; `length`: bytes of its body, None = it comes in chunks."""
    body = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    kind = "" if length == 0 else f"Content-Type: {FRAMES_TYPE}\r\n"
    return f"{method} {target} HTTP/1.1\r\n{_COMMON}{kind}{body}\r\n\r\n".encode("ascii")


class Exchange:
    """An answer of frames. `recorder` takes the output; None where none is expected."""

    def __init__(self, link: AgentLink, host: str, recorder: Recorder | None) -> None:
        self._link = link
        self._host = host
        self._recorder = recorder
        self._frames = FrameParser(self._take, FROM_AGENT, MAX_ANSWER_FRAME)
        self._end: Result | OpsError | str | None = None
        self._broken: BaseException | None = None
        self._timer: asyncio.TimerHandle
        self.headers: Mapping[str, str] = {}
        if recorder is not None:
            recorder.on_drain = link.release
            recorder.on_failure = self._sink_failed

    async def run(self, request: bytes, stdin: AsyncIterator[bytes] | None = None) -> Result | str:
        """Send a request and return its end: a Result, or the id of a run that was started and lives on.

        Raises what the agent answers, ConnectionLost when it goes away, and what the sink or `stdin` raise. However
        it is left, the link is either ready for the next request or dropped.
        """
        link = self._link
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._watch)
        feeding: asyncio.Task[None] | None = None
        try:
            answered = link.ask(request, self._head, self._frames.feed)
            if stdin is not None:
                feeding = asyncio.create_task(self._feed(stdin))
                feeding.add_done_callback(self._fed)
            await answered
        except BaseException as error:
            gone = error if isinstance(error, OpsError) else ConnectionLost("left by the caller", host=self._host)
            link.abort(gone)
            if self._broken is not None and not isinstance(error, asyncio.CancelledError):
                raise self._broken from error
            raise
        finally:
            self._timer.cancel()
            await self._stop_feeding(feeding)
        return self._checked()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        if headers.get("content-type") != FRAMES_TYPE:
            raise ProtocolError(f"the agent answered HTTP {status} without frames", hint="is this ops-agent's socket?")
        self.headers = headers

    def _take(self, kind: int, data: bytes) -> None:
        if self._end is not None:
            raise ProtocolError("a frame after the answer's last one")
        if kind in (OUT, ERR):
            self._output(kind - OUT, data)
        elif kind == RESULT:
            self._end = decode_result(data)
        elif kind == ERROR:
            self._end = decode_error(data, self._host)
        elif kind == STARTED:
            self._end = data.decode("ascii", "replace")

    def _output(self, stream: int, data: bytes) -> None:
        recorder = self._recorder
        if recorder is None:
            raise ProtocolError("output where none is expected")
        if not data:
            return
        if not recorder.feed(stream, data):
            self._link.hold()
        if recorder.over_limit:
            text = f"output is over the limit of {recorder.limit_bytes} bytes"
            raise LimitExceeded(text, hint="ask for less, or raise max_output_bytes")

    def _sink_failed(self) -> None:
        """The sink raised: the run is ended by dropping the link, and the sink's own error is what is raised."""
        assert self._recorder is not None
        self._drop(self._recorder.failure)

    def _drop(self, why: BaseException | None) -> None:
        self._broken = self._broken or why
        self._link.abort(ConnectionLost("left by the caller", host=self._host))

    def _checked(self) -> Result | str:
        end = self._end
        if isinstance(end, OpsError):
            raise end
        if end is None or not self._frames.between_frames:
            self._link.abort(ConnectionLost("left by the caller", host=self._host))
            raise ProtocolError("the agent's answer has no end; whether its step finished is unknown", host=self._host)
        return end

    def _watch(self) -> None:
        """Give an agent up that says nothing, not even that it lives; a caller who holds is not its fault."""
        loop = asyncio.get_running_loop()
        if not self._link.held and loop.time() - self._link.heard_at > SILENCE_S:
            text = f"nothing was heard of the agent for {SILENCE_S:g} s; whether its step finished is unknown"
            self._link.abort(ConnectionLost(text, host=self._host, hint="is it stopped, or the way to it cut?"))
            return
        self._timer = loop.call_later(BEAT_S, self._watch)

    async def _feed(self, stdin: AsyncIterator[bytes]) -> None:
        async for block in stdin:
            for at in range(0, len(block), MAX_BULK_FRAME):
                await self._link.send(chunk(frame(STDIN, block[at : at + MAX_BULK_FRAME])))
        await self._link.send(chunk(frame(STDIN_END)) + LAST_CHUNK)

    def _fed(self, task: asyncio.Task[None]) -> None:
        """Input that breaks ends the run: its program would wait for the rest for ever."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._drop(error)

    async def _stop_feeding(self, feeding: asyncio.Task[None] | None) -> None:
        """Input that is still under way when the answer is complete leaves half a request behind: drop the link."""
        if feeding is None:
            return
        if not feeding.done():
            self._link.abort(ConnectionLost("left by the caller", host=self._host))
            feeding.cancel()
        await asyncio.wait([feeding])
