"""`FarSession`: the caller's end of a session on a host: many runs and operations at once over one byte stream."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from opsexec.errors import BadStep, ConnectionLost, OpsError, ProtocolError, StepTimeout
from opsexec.far import frames
from opsexec.far.frames import HEADER, NUMBER
from opsexec.far.launch import Launch
from opsexec.far.message import as_text, pack_message, unpack_message
from opsexec.hosts.answers import answer_limit, as_error
from opsexec.hosts.bootstrap import other_sources
from opsexec.hosts.far_run import END_WAIT_S, FarRun, no_word_of_end
from opsexec.hosts.frame_reader import FrameReader, exit_status
from opsexec.hosts.port import ProcessExit, ProcessSpec
from opsexec.recorder import Recorder


class ByteStream(Protocol):
    """What a session needs of its transport."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def close(self) -> None:
        """Close both directions."""
        ...


class FarSession:
    """Runs and operations over one ByteStream; bytes from the host come in through `data_received`."""

    def __init__(self, host: str, nonce: str, run_as: str | None = None) -> None:
        self.host = host
        self.run_as = run_as
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.lost: OpsError | None = None
        self.gone = asyncio.Event()
        self.complaint = b""
        self._stream: ByteStream | None = None
        self._reader = FrameReader(nonce, self._output, self._frame, self._answer_limit)
        self._flowing = True
        self._runs: dict[int, FarRun] = {}
        self._calls: dict[int, asyncio.Future[list[bytes]]] = {}
        self._limits: dict[int, int] = {}
        self._refs = 0
        self._equipped = False
        self._beat: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self._heard = True

    def attach(self, stream: ByteStream, opening: bytes) -> None:
        """Give the session its transport and start the far half over it."""
        self._stream = stream
        stream.write(opening)

    @property
    def last_words(self) -> str:
        """The last line of what the host said before it ended: on stderr, else on stdout (as nologin(8) does)."""
        said = self.complaint.strip() or self._reader.noise.strip()
        return said.decode("utf-8", "replace").rpartition("\n")[2][:200]

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
        """Take bytes as they come; what is no frame of this protocol ends the session with ProtocolError."""
        if self.lost is not None:
            return
        self._heard = True
        try:
            self._reader.take(data)
        except ValueError as error:
            self.fail(ProtocolError(f"the host {error}", host=self.host, hint="is it what you think it is?"))

    def _answer_limit(self, ref: int) -> int | None:
        return self._limits.get(ref)

    def _output(self, kind: int, ref: int, block: bytes) -> None:
        run = self._runs.get(ref)
        if run is not None:
            run.output(kind - frames.OUTPUT, block)

    def _frame(self, kind: int, ref: int, payload: bytes) -> None:
        run = self._runs.get(ref)
        if kind == frames.ANSWER:
            call = self._calls.get(ref)
            if call is not None and not call.done():
                call.set_result(unpack_message(payload))
        elif kind == frames.FAILED:
            self._failed(ref, payload)
        elif kind == frames.HELLO:
            self._hello(payload)
        elif run is None:
            return
        elif kind == frames.EXIT:
            status = exit_status(payload)
            if not run.done.done():
                run.done.set_result(status)
        elif kind == frames.TAKEN:
            run.input_room = min(frames.INPUT_WINDOW, run.input_room + NUMBER.unpack(payload)[0])
            run.input_ready.set()
        elif run.ended is not None and not run.ended.done():
            run.ended.set_result(NUMBER.unpack(payload)[0])
            if run.ended.result() and not run.done.done():
                _give_up(run.done, survived(run.ended.result(), self.host))

    def _hello(self, payload: bytes) -> None:
        protocol, *_ = unpack_message(payload)
        if protocol != frames.PROTOCOL:
            self.fail(ProtocolError(f"the far half speaks protocol {protocol!r}", host=self.host))
        elif not self.ready.done():
            self.ready.set_result(None)

    def _failed(self, ref: int, payload: bytes) -> None:
        code, text, *details = (as_text(item) for item in unpack_message(payload))
        error = as_error(code, text, details, host=self.host)
        run = self._runs.get(ref)
        waiting: asyncio.Future[int] | asyncio.Future[list[bytes]] | None = run.done if run else self._calls.get(ref)
        if waiting is not None and not waiting.done():
            _give_up(waiting, error)

    def fail(self, error: OpsError) -> None:
        """The session is over: everything under way ends with this error."""
        if self.lost is not None:
            return
        self.lost = error
        if not self.ready.done():
            _give_up(self.ready, error)
        for run in self._runs.values():
            if not run.done.done():
                _give_up(run.done, error)
            if run.ended is not None and not run.ended.done():
                run.ended.set_result(0)
            run.input_ready.set()
        for call in self._calls.values():
            if not call.done():
                _give_up(call, error)
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
        """Tell the far half, while something runs, that the caller is still there, and expect the same of it.

        Beats are counted, not seconds: when this machine slept, what the host said meanwhile is still to be read.
        """
        self._beat = None
        if self.lost is not None or not self.busy:
            return
        self._unanswered = 0 if self._heard else self._unanswered + 1
        self._heard = False
        if self._unanswered * frames.BEAT_S >= frames.LEASE_S:
            text = f"no word from the host for {frames.LEASE_S:g} s; whether its steps finished is unknown"
            self.fail(ConnectionLost(text, host=self.host, hint="look on the host, then resume"))
            return
        self.send(frames.BEAT, 0, b"")
        self._beat = self.loop.call_later(frames.BEAT_S, self._keep_beating)

    def _begin(self) -> int:
        if self.lost is not None:
            raise self.lost
        self._refs = self._refs + 1 & 0xFFFFFFFF
        if self._beat is None:
            self._unanswered, self._heard = 0, True
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
            self.fail(no_word_of_end(self.host))
            raise no_word_of_end(self.host) from None
        finally:
            self._runs.pop(run.ref, None)
        if survivors:
            raise survived(survivors, self.host)

    async def _feed(self, run: FarRun, stdin: AsyncIterator[bytes]) -> None:
        """Send the program's input as it takes it."""
        async for block in stdin:
            await self.give(run, block)
            if run.done.done() or self.lost is not None:
                return  # nobody is left to read: the caller is asked for no more
        if self.lost is None:
            self.send(frames.INPUT, run.ref, b"")

    async def give(self, run: FarRun, data: bytes) -> None:
        """Send a block of input, waiting for room; what a finished run can't take is dropped."""
        view = memoryview(data)
        while view:
            while (run.input_room <= 0 or not self._flowing) and self.lost is None and not run.done.done():
                run.input_ready.clear()
                await run.input_ready.wait()
            if run.done.done() or self.lost is not None:
                return
            part = view[: min(run.input_room, 65536)]
            run.input_room -= len(part)
            self.send(frames.INPUT, run.ref, bytes(part))
            view = view[len(part) :]

    def pause_writing(self) -> None:
        """The transport takes no more for now, whatever room the host says a program has."""
        self._flowing = False

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._flowing = True
        for run in self._runs.values():
            run.input_ready.set()

    def forget(self, run: FarRun) -> None:
        """Nothing more is expected of this run."""
        run.input_ready.set()
        if run.ended is None:
            self._runs.pop(run.ref, None)

    async def call(self, operation: str, args: Sequence[bytes]) -> list[bytes]:
        """As `Host.call`."""
        request = pack_message([operation.encode(), *args])
        if len(request) > frames.MAX_FRAME:
            raise BadStep(f"{operation} takes over 1 GiB at once", host=self.host, hint="use Push")
        ref = self._begin()
        waiting: asyncio.Future[list[bytes]] = self.loop.create_future()
        self._calls[ref] = waiting
        self._limits[ref] = answer_limit(operation, args)
        try:
            if not self._equipped:
                self._equipped = True
                self.send(frames.SOURCES, 0, other_sources())
            self.send(frames.CALL, ref, request)
            return await waiting
        except asyncio.CancelledError:
            if self.lost is None:
                self.send(frames.END, ref, NUMBER.pack(0))
            raise
        finally:
            del self._calls[ref], self._limits[ref]


def closed(host: str) -> ConnectionLost:
    """Return the error for a run whose executor was closed under it."""
    return ConnectionLost(
        "the executor was closed; its steps were ended", host=host, hint="wait for them before closing"
    )


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


def _give_up(waiting: asyncio.Future[Any], error: OpsError) -> None:
    """Have whoever waits raise the error; nobody is warned where who began it has given up already."""
    waiting.set_exception(error)
    waiting.exception()


def _failure(feeding: asyncio.Task[None]) -> BaseException | None:
    """Return the error of the caller's own iterator; being stopped, or having nobody left to feed, is none."""
    error = None if feeding.cancelled() else feeding.exception()
    return None if isinstance(error, ConnectionLost) else error
