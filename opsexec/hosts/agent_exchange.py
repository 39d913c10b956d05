"""One step over one link: its request and input go out, its output goes to the recorder, its end comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from opsexec.errors import ConnectionLost, LimitExceeded, OpsError, ProtocolError, StepTimeout
from opsexec.hosts.agent_http import LAST_CHUNK, chunk
from opsexec.wire import (
    BEAT_S,
    ERR,
    ERROR,
    FRAMES_TYPE,
    FROM_AGENT,
    MAX_ANSWER_FRAME,
    MAX_BULK_FRAME,
    OFFSET_HEADER,
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

SILENCE_S = 4 * BEAT_S
"""Seconds without a byte after which an agent counts as gone: it beats every BEAT_S."""

LEAVE_S = 5.0
"""Seconds the agent gets to end what it does for a caller who leaves, before the link is dropped."""

GRACE_S = 10.0
"""Seconds the agent may be late with the word that a deadline passed."""

END_INPUT_S = 1.0

_COMMON = f"Host: ops-agent\r\n{VERSION_HEADER}: {PROTOCOL}\r\nAccept: {FRAMES_TYPE}\r\n"


def request_head(method: str, target: str, length: int | None = 0) -> bytes:
    """Return a request's head; `length`: bytes of its body, None = it comes in chunks."""
    body = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    kind = "" if length == 0 else f"Content-Type: {FRAMES_TYPE}\r\n"
    return f"{method} {target} HTTP/1.1\r\n{_COMMON}{kind}{body}\r\n\r\n".encode("ascii")


class Taker(Protocol):
    """What takes an answer's output: a Recorder, or what stands in for one."""

    counts: list[int]
    limit_bytes: int | None
    failure: BaseException | None
    on_drain: Callable[[], None] | None
    on_failure: Callable[[], None] | None

    @property
    def over_limit(self) -> bool:
        """True once there was more output than may be."""
        ...

    def feed(self, stream: int, data: bytes) -> bool:
        """Take a block of stream 0 or 1; returns False when it is behind, and calls `on_drain` later."""
        ...


class Exchange:
    """An answer of frames. `recorder` takes the output; None where none is expected."""

    kinds = FROM_AGENT

    def __init__(self, link: AgentLink, host: str, recorder: Taker | None = None) -> None:
        self._link = link
        self._host = host
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._frames = FrameParser(self._take, self.kinds, MAX_ANSWER_FRAME)
        self._end: Result | OpsError | str | None = None
        self._left = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.headers: Mapping[str, str] = {}
        self.unheard = False
        """Whether it was left, and the agent didn't say that what it did has ended."""
        self.on_frame: Callable[[int, int], None] | None = None
        """Told, for each piece of output, how many bytes of output came up to its end, and `offset`."""
        self.end_input: Callable[[], None] | None = None
        """Called when the answer is complete and input is still under way: ends it, so that the link can go on."""
        if recorder is not None:
            recorder.on_drain = link.release
            recorder.on_failure = lambda: self._drop(recorder.failure)

    async def run(
        self, request: bytes, stdin: AsyncIterator[bytes] | None = None, timeout_s: float | None = None
    ) -> Result | str:
        """Send a request and return its end: a Result, or the id of a run that was started and lives on.

        Raises what the agent answers, ConnectionLost when it goes away, StepTimeout when it is late with the word that
        `timeout_s` seconds passed, and what the sink or `stdin` raise. However it is left, what it had the agent do has
        ended by then, unless it is `unheard`; and the link is either ready for the next request or dropped.
        """
        link = self._link
        self._later("watch", BEAT_S, self._watch)
        if timeout_s is not None:
            self._later("deadline", timeout_s, lambda: self._late(timeout_s))
        feeding: asyncio.Task[None] | None = None
        try:
            link.ask(request, self._head, self._frames.feed, self._answered)
            if stdin is not None:
                feeding = asyncio.create_task(self._feed(stdin))
                feeding.add_done_callback(self._fed)
            await self._over
        except BaseException:  # a cancellation as well: the agent ends what it does
            self._left = True
            self.unheard = not await link.leave(LEAVE_S)
            raise
        finally:
            for timer in self._timers.values():
                timer.cancel()
            await self._stop_feeding(feeding)
        return self._checked()

    @property
    def offset(self) -> int:
        """How far a run's log was read, in bytes: where to go on from, should the link be lost."""
        return int(self.headers.get(OFFSET_HEADER.lower(), "0")) + self._frames.bulk_done

    def _later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._timers[name] = self._loop.call_later(seconds, call)

    def _answered(self, error: OpsError | None) -> None:
        if self._over.done():
            return
        if error is not None:
            self._over.set_exception(error)
        else:
            self._over.set_result(None)

    def _drop(self, why: BaseException | None) -> None:
        """Let `run` raise this, once it has had the agent end what it does."""
        if not self._over.done() and why is not None:
            self._over.set_exception(why)

    def _late(self, timeout_s: float) -> None:
        """The deadline passed: the agent says so, unless its words wait behind output that the sink doesn't take."""
        text = f"no end after {timeout_s:g} s; its process tree was ended"
        error = StepTimeout(text, host=self._host, hint="raise timeout_s")
        if self._link.held:
            self._drop(error)
        else:
            self._later("deadline", GRACE_S, lambda: self._drop(error))

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        if headers.get("content-type") != FRAMES_TYPE:
            raise ProtocolError(f"the agent answered HTTP {status} without frames", hint="is this ops-agent's socket?")
        begins = headers.get(OFFSET_HEADER.lower(), "0")
        if not (begins.isascii() and begins.isdigit() and len(begins) < 20):
            raise ProtocolError(f"the agent's log begins at no byte: {begins[:80]!r}")
        self.headers = headers

    def _take(self, kind: int, data: bytes) -> None:
        if self._left:
            return
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
        if self.on_frame is not None:
            self.on_frame(sum(recorder.counts) + len(data), self.offset)
        if not recorder.feed(stream, data):
            self._link.hold()
        if recorder.over_limit:
            text = f"output is over the limit of {recorder.limit_bytes} bytes"
            hint = "ask for less, or raise max_output_bytes"
            self._left = True
            self._drop(LimitExceeded(text, host=self._host, hint=hint))

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
        if not self._link.held and self._loop.time() - self._link.heard_at > SILENCE_S:
            text = f"nothing was heard of the agent for {SILENCE_S:g} s; whether its step finished is unknown"
            self._link.abort(ConnectionLost(text, host=self._host, hint="is it stopped, or the way to it cut?"))
            return
        self._later("watch", BEAT_S, self._watch)

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
        if not feeding.done() and self.end_input is not None and self._link.lost is None:
            self.end_input()
            await asyncio.wait([feeding], timeout=END_INPUT_S)
        if not feeding.done():
            self._link.abort(ConnectionLost("left by the caller", host=self._host))
            feeding.cancel()
        await asyncio.wait([feeding])
