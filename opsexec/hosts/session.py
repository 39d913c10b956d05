"""`FarSession`: the caller's end of a session on a host: many runs and operations at once over one byte stream."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from opsexec.errors import ConnectionLost, LimitExceeded, OpsError, ProtocolError, StepTimeout
from opsexec.far import frames
from opsexec.far.frames import HEADER, NUMBER, STATUS
from opsexec.far.launch import Launch
from opsexec.far.message import pack_message, unpack_message
from opsexec.hosts.answers import as_error
from opsexec.hosts.bootstrap import other_sources
from opsexec.hosts.port import ProcessExit, ProcessSpec
from opsexec.recorder import Recorder

END_WAIT_S = 5.0
"""Seconds to wait for the host to say that a tree has ended; after that the error says it is unknown."""
_NOISE_LIMIT = 256 << 10


class ByteStream(Protocol):
    """What a session needs of its transport."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def close(self) -> None:
        """Close both directions."""
        ...


class FarRun:
    """One program, as the caller holds it."""

    def __init__(self, session: FarSession, ref: int, recorder: Recorder) -> None:
        self.session = session
        self.ref = ref
        self.recorder = recorder
        self.done: asyncio.Future[int] = session.loop.create_future()
        self.ended: asyncio.Future[int] | None = None
        self.why: OpsError | None = None
        self.owed = 0
        self.input_room = frames.INPUT_WINDOW
        self.input_ready = asyncio.Event()
        recorder.on_drain = self.grant
        recorder.on_failure = self.stop

    def output(self, stream: int, data: bytes) -> None:
        """Take a block of output; grants more once half a window has been taken, unless the sink is behind."""
        self.owed += len(data)
        ready = self.recorder.feed(stream, data)
        if self.owed >= frames.OUTPUT_WINDOW // 2 and ready:
            self.grant()
        if self.recorder.over_limit and self.why is None:
            limit = self.recorder.limit_bytes
            text = f"output is over the limit of {limit} bytes"
            self.why = LimitExceeded(text, host=self.session.host, hint="its process tree was ended")
            self.stop()

    def grant(self) -> None:
        """Let the host send as much as was taken."""
        if self.owed and not self.done.done():
            self.session.send(frames.CREDIT, self.ref, NUMBER.pack(self.owed))
        self.owed = 0

    def stop(self) -> None:
        """Ask the host to end the tree; the first call counts."""
        if self.ended is None:
            self.ended = self.session.loop.create_future()
            if not self.session.lost:
                self.session.send(frames.END, self.ref, NUMBER.pack(int(frames.GRACE_S * 1000)))
                self.session.loop.call_later(END_WAIT_S, self._no_word)
            else:
                self.ended.set_result(0)

    def _no_word(self) -> None:
        """The host never said that the tree ended: the network or the host is frozen."""
        if not self.done.done():
            text = f"no word within {END_WAIT_S:g} s that the process tree ended"
            self.done.set_exception(ConnectionLost(text, host=self.session.host, hint="look on the host"))
            if self.ended is not None and not self.ended.done():
                self.ended.set_result(0)


class FarSession:
    """Runs and operations over one ByteStream; bytes from the host come in through `data_received`."""

    def __init__(self, host: str, nonce: str, run_as: str | None = None) -> None:
        self.host = host
        self.run_as = run_as
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.lost: OpsError | None = None
        self.gone = asyncio.Event()
        self.noise = b""
        self.complaint = b""
        self._stream: ByteStream | None = None
        self._nonce = nonce.encode()
        self._runs: dict[int, FarRun] = {}
        self._calls: dict[int, asyncio.Future[list[bytes]]] = {}
        self._refs = 0
        self._greeted = False
        self._equipped = False
        self._head = b""
        self._kind = self._ref = self._left = 0
        self._body: list[bytes] = []
        self._beat: asyncio.TimerHandle | None = None

    def attach(self, stream: ByteStream, opening: bytes) -> None:
        """Give the session its transport and start the far half over it."""
        self._stream = stream
        stream.write(opening)

    @property
    def busy(self) -> bool:
        """True while a run or an operation is under way."""
        return bool(self._runs or self._calls)

    def send(self, kind: int, ref: int, payload: bytes) -> None:
        """Send one frame; raises ConnectionLost when the session is gone."""
        if self.lost is not None or self._stream is None:
            raise self.lost or ConnectionLost("the session is not open", host=self.host)
        self._stream.write(HEADER.pack(kind, ref, len(payload)) + payload)

    # -- bytes from the host --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes as they come; output goes to its recorder block by block, never gathered."""
        if not self._greeted:
            data = self._greet(data)
        if self._head:
            data = self._head + data
            self._head = b""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                take = min(self._left, size - at)
                self._payload(data[at : at + take] if take != size else data)
                at += take
                continue
            if size - at < HEADER.size:
                self._head = data[at:]
                return
            self._kind, self._ref, self._left = HEADER.unpack_from(data, at)
            at += HEADER.size
            if self._left > frames.MAX_FRAME:
                self.fail(ProtocolError("the host sent a frame over the limit", host=self.host))
                return
            if not self._left:
                self._frame(b"")

    def _greet(self, data: bytes) -> bytes:
        """Skip what the host's shell printed before the session spoke; return what comes after the nonce."""
        data = self.noise + data
        at = data.find(self._nonce)
        if at < 0:
            self.noise = data[-_NOISE_LIMIT:]
            return b""
        self._greeted = True
        self.noise = data[:at]
        return data[at + len(self._nonce) :]

    def _payload(self, data: bytes) -> None:
        self._left -= len(data)
        kind = self._kind
        if kind == frames.OUTPUT or kind == frames.ERRORS:
            run = self._runs.get(self._ref)
            if run is not None:
                run.output(kind - frames.OUTPUT, data)
            return
        self._body.append(data)
        if not self._left:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = []
            self._frame(body)

    def _frame(self, payload: bytes) -> None:
        kind, ref = self._kind, self._ref
        if kind == frames.EXIT:
            run = self._runs.get(ref)
            if run is not None and not run.done.done():
                run.done.set_result(STATUS.unpack(payload)[0])
        elif kind == frames.ANSWER:
            call = self._calls.get(ref)
            if call is not None and not call.done():
                call.set_result(unpack_message(payload))
        elif kind == frames.FAILED:
            self._failed(ref, payload)
        elif kind == frames.TAKEN:
            run = self._runs.get(ref)
            if run is not None:
                run.input_room += NUMBER.unpack(payload)[0]
                run.input_ready.set()
        elif kind == frames.ENDED:
            run = self._runs.get(ref)
            if run is not None and run.ended is not None and not run.ended.done():
                run.ended.set_result(NUMBER.unpack(payload)[0])
                if run.ended.result() and not run.done.done():
                    run.done.set_exception(survived(run.ended.result(), self.host))
        elif kind == frames.HELLO:
            self._hello(payload)
        else:
            self.fail(ProtocolError(f"the host sent a frame of unknown kind {kind}", host=self.host))

    def _hello(self, payload: bytes) -> None:
        protocol = unpack_message(payload)[0]
        if protocol != frames.PROTOCOL:
            self.fail(ProtocolError(f"the far half speaks protocol {protocol!r}", host=self.host))
        elif not self.ready.done():
            self.ready.set_result(None)

    def _failed(self, ref: int, payload: bytes) -> None:
        code, text, *details = (os.fsdecode(item) for item in unpack_message(payload))
        error = as_error(code, text, details, host=self.host)
        run = self._runs.get(ref)
        waiting: asyncio.Future[int] | asyncio.Future[list[bytes]] | None = run.done if run else self._calls.get(ref)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def fail(self, error: OpsError) -> None:
        """The session is over: everything under way ends with this error."""
        if self.lost is not None:
            return
        self.lost = error
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # the opener may have given up already; it must not warn about it then
        for run in self._runs.values():
            if not run.done.done():
                run.done.set_exception(error)
            if run.ended is not None and not run.ended.done():
                run.ended.set_result(0)
            run.input_ready.set()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(error)
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if self._stream is not None:
            self._stream.close()

    def close(self) -> None:
        """Close the transport: the far half ends what still runs, and whoever waits for it here gets ConnectionLost."""
        self.fail(closed(self.host))

    async def wait_gone(self) -> None:
        """Wait, bounded, until the transport is closed, which is after the far half has ended what ran."""
        try:
            await asyncio.wait_for(self.gone.wait(), END_WAIT_S)
        except TimeoutError:
            raise ConnectionLost("the session did not close", host=self.host, hint="look on the host") from None

    def _keep_beating(self) -> None:
        """Tell the far half, while something runs, that the caller is still there."""
        self._beat = None
        if self.lost is None and self.busy:
            self.send(frames.BEAT, 0, b"")
            self._beat = self.loop.call_later(frames.BEAT_S, self._keep_beating)

    def _begin(self) -> int:
        if self.lost is not None:
            raise self.lost
        self._refs = self._refs + 1 & 0xFFFFFFFF
        if self._beat is None:
            self._beat = self.loop.call_later(frames.BEAT_S, self._keep_beating)
        return self._refs

    # -- what handlers ask ----------------------------------------------------------------------------------------

    async def run_process(
        self, spec: ProcessSpec, recorder: Recorder, stdin: AsyncIterator[bytes] | None = None
    ) -> ProcessExit:
        """As `Host.run_process`."""
        run = self.start(as_launch(spec, stdin is not None), recorder)
        timer = self.loop.call_later(spec.timeout_s, self._expire, run, spec.timeout_s) if spec.timeout_s else None
        feeding = self._begin_feeding(run, stdin) if stdin is not None else None
        try:
            status = await run.done
            if run.ended is not None:
                await self.await_end(run)
        except asyncio.CancelledError:
            run.stop()
            await self.await_end(run)
            raise
        finally:
            self._runs.pop(run.ref, None)
            if timer is not None:
                timer.cancel()
            if feeding is not None:
                feeding.cancel()
                await asyncio.wait([feeding])
        if feeding is not None and (broken := _failure(feeding)) is not None:
            raise broken
        if run.why is not None:
            raise run.why
        return as_exit(status)

    def _begin_feeding(self, run: FarRun, stdin: AsyncIterator[bytes]) -> asyncio.Task[None]:
        """Feed the program; input that breaks ends it, since it would wait for the rest for ever."""
        feeding = self.loop.create_task(self._feed(run, stdin))
        feeding.add_done_callback(lambda task: None if _failure(task) is None else run.stop())
        return feeding

    def start(self, launch: Launch, recorder: Recorder) -> FarRun:
        """Send a launch; the caller awaits `done` of what is returned."""
        ref = self._begin()
        run = FarRun(self, ref, recorder)
        self._runs[ref] = run
        self.send(frames.SPAWN, ref, launch.pack())
        return run

    def _expire(self, run: FarRun, timeout_s: float) -> None:
        run.why = StepTimeout(
            f"no end after {timeout_s:g} s; its process tree was ended", host=self.host, hint="raise timeout_s"
        )
        run.stop()

    async def await_end(self, run: FarRun) -> None:
        """Wait, bounded, until the host says that the tree is gone."""
        assert run.ended is not None
        try:
            survivors = await asyncio.wait_for(run.ended, END_WAIT_S)
        except TimeoutError:
            raise ConnectionLost(
                f"no word within {END_WAIT_S:g} s that the process tree ended", host=self.host, hint="look on the host"
            ) from None
        finally:
            self._runs.pop(run.ref, None)
        if survivors:
            raise survived(survivors, self.host)

    async def _feed(self, run: FarRun, stdin: AsyncIterator[bytes]) -> None:
        """Send the program's input as it takes it."""
        async for block in stdin:
            await self.give(run, block)
        if self.lost is None:
            self.send(frames.INPUT, run.ref, b"")

    async def give(self, run: FarRun, data: bytes) -> None:
        """Send a block of input, waiting for room; what a finished run can't take is dropped."""
        view = memoryview(data)
        while view:
            while run.input_room <= 0:
                run.input_ready.clear()
                await run.input_ready.wait()
            if run.done.done() or self.lost is not None:
                return
            part = view[: min(run.input_room, 65536)]
            run.input_room -= len(part)
            self.send(frames.INPUT, run.ref, bytes(part))
            view = view[len(part) :]

    def forget(self, run: FarRun) -> None:
        """Nothing more is expected of this run."""
        run.input_room = frames.INPUT_WINDOW
        run.input_ready.set()
        if run.ended is None:
            self._runs.pop(run.ref, None)

    async def call(self, operation: str, args: Sequence[bytes]) -> list[bytes]:
        """As `Host.call`."""
        ref = self._begin()
        waiting: asyncio.Future[list[bytes]] = self.loop.create_future()
        self._calls[ref] = waiting
        try:
            if not self._equipped:
                self._equipped = True
                self.send(frames.SOURCES, 0, other_sources())
            self.send(frames.CALL, ref, pack_message([operation.encode(), *args]))
            return await waiting
        except asyncio.CancelledError:
            if self.lost is None:
                self.send(frames.END, ref, NUMBER.pack(0))
            raise
        finally:
            del self._calls[ref]


def closed(host: str) -> ConnectionLost:
    """Return the error for a run whose executor was closed under it."""
    return ConnectionLost("the executor was closed; its steps were ended", host=host, hint="wait for them before closing")


def survived(count: int, host: str) -> OpsError:
    """Return the error for processes that could not be ended (another user's, or stuck in the kernel)."""
    return OpsError(f"{count} processes of the run could not be ended", host=host, hint="end them on the host")


def as_launch(spec: ProcessSpec, streams_stdin: bool, term: str = "", columns: int = 0, rows: int = 0) -> Launch:
    """Return the launch a ProcessSpec stands for."""
    return Launch(
        spec.run, spec.programs, spec.admitted, spec.argv, spec.env, spec.cwd or "", spec.stdin or b"",
        streams_stdin, term, columns, rows,
    )  # fmt: skip


def as_exit(status: int) -> ProcessExit:
    """Return how a process ended from its exit code, or minus its signal's number."""
    if status >= 0:
        return ProcessExit(status, None)
    try:
        return ProcessExit(None, signal.Signals(-status).name)
    except ValueError:
        return ProcessExit(None, f"SIG{-status}")


def _failure(feeding: asyncio.Task[None]) -> BaseException | None:
    """Return the error of the caller's own iterator; being stopped, or having nobody left to feed, is none."""
    error = None if feeding.cancelled() else feeding.exception()
    return None if isinstance(error, ConnectionLost) else error
