"""The session on the host: reads frames on stdin, runs programs and operations, answers on stdout. Single-threaded.

It ends every run it still has when its caller is gone (end of input, SIGHUP, SIGTERM, or no frame for LEASE_S seconds).
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from opsexec.far import frames
from opsexec.far.drain import SILENCE_S, Drain, waiting
from opsexec.far.feeding import Feeding
from opsexec.far.frames import HEADER, NUMBER, SIZE, STATUS
from opsexec.far.launch import Launch
from opsexec.far.message import FarError, as_bytes, pack_message, unpack_message
from opsexec.far.outbox import Outbox
from opsexec.far.run import Run, widen, write_whole
from opsexec.far.spawn import resize, spawn_on_pipes, spawn_on_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

else:
    # The modules behind `signal` and `collections`: those cost 6 ms of a session's start, these nothing.
    import _signal as signal

BLOCK = 128 << 10
BULK = 32 << 10
"""Bytes in one piece from which a program's output counts as bulk, and goes from pipe to caller without a copy."""
OUT_LIMIT = 1 << 20
"""Bytes waiting for a stalled caller above which no more output is read."""


class Session:
    """The event loop over the caller's frames, the runs' pipes and the deaths of children."""

    def __init__(self) -> None:
        self.poll = select.poll()
        self.runs = {}  # type: dict[int, Run]
        self.readers = {}  # type: dict[int, Run]
        self.buffer = bytearray()
        self.out = Outbox(1)
        self.stalled = False
        self.heard_at = time.monotonic()
        self.over = False
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.wake, wake = os.pipe()
        for fd in (self.wake, wake, 0, 1):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self.feeding = Feeding(self.poll, self.send)
        self.poll.register(0, select.POLLIN)
        self.poll.register(self.wake, select.POLLIN)

    def _stop(self, number: int, frame: object) -> None:
        self.over = True

    # -- the loop -------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Serve until the caller is gone, then end what still runs."""
        while not self.over:
            wait = self._due()
            for fd, event in self.poll.poll(None if wait is None else max(0, int(wait * 1000) + 1)):
                self._ready(fd, event)
            if self.runs and time.monotonic() - self.heard_at > frames.LEASE_S:
                self.over = True
        left = [(r.launch.run, r.pid) for r in self.runs.values() if r.status is None or r.ending]
        if left:
            from opsexec.far.tree_end import end_now

            end_now(left, frames.GRACE_S)

    def _ready(self, fd: int, event: int) -> None:
        if fd == 0:
            self._hear()
        elif fd == 1:
            if event & ~select.POLLOUT:
                self.over = True
            else:
                self._flush()
        elif fd == self.wake:
            os.read(fd, 4096)
            self._reap()
        elif fd in self.readers:
            self._output(self.readers[fd], fd)
        else:
            run = self.feeding.run_of(fd)
            if run is not None:
                self.feeding.give(run)

    def _due(self) -> float | None:
        """Do what time alone makes due; returns the seconds until the next such thing, None when there is none."""
        waits = []
        for run in list(self.runs.values()):
            if run.ending is not None:
                wait = run.ending.step()
                if wait is None:
                    self.send(frames.ENDED, run.ref, NUMBER.pack(run.ending.survivors))
                    run.ending = None
                    run.ended = True  # reaped or not yet: what it has said till now is all that is waited for
                    self._maybe_finish(run)
                else:
                    waits.append(wait)
            elif run.drain is not None:
                if run.left <= 0 or self.out.size > OUT_LIMIT:
                    waits.append(SILENCE_S)  # the caller is slow, not the program silent
                elif wait := run.drain.wait(run.outputs):
                    waits.append(wait)
                else:
                    self._maybe_finish(run, forced=True)
        if self.runs:
            waits.append(max(0.05, self.heard_at + frames.LEASE_S - time.monotonic()))
        return min(waits) if waits else None

    # -- to the caller --------------------------------------------------------------------------------------------

    def send(self, kind: int, ref: int, payload: bytes) -> None:
        """Queue a frame and write what the caller takes at once."""
        self.out.frame(kind, ref, payload)
        self._flush()

    def _flush(self) -> None:
        try:
            empty = self.out.flush()
        except OSError:  # the caller is gone
            self.over = True
            return
        if not empty:
            self.stalled = True
            self._watch(1, select.POLLOUT)
            return
        if self.stalled:
            self.stalled = False
            self._unwatch(1)
            for run in self.runs.values():
                self._resume(run)

    def _watch(self, fd: int, events: int) -> None:
        self.poll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        try:
            self.poll.unregister(fd)
        except KeyError:
            return  # it was not being watched

    # -- from the caller ------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        try:
            data = os.read(0, 1 << 18)
        except BlockingIOError:
            return
        except OSError:  # a connection that was cut ends like one that was closed
            data = b""
        if not data:
            self.over = True
            return
        self.heard_at = time.monotonic()
        buffer = self.buffer
        buffer += data
        at = 0
        while len(buffer) - at >= HEADER.size:
            kind, ref, size = HEADER.unpack_from(buffer, at)
            if size > frames.MAX_FRAME:
                self.over = True
                return
            end = at + HEADER.size + size
            if len(buffer) < end:
                break
            self._frame(kind, ref, bytes(buffer[at + HEADER.size : end]))
            at = end
        del buffer[:at]

    def _frame(self, kind: int, ref: int, payload: bytes) -> None:
        try:
            if kind == frames.SPAWN:
                self._spawn(ref, Launch.parse(payload))
            elif kind == frames.SOURCES:
                adopt(payload)
            elif kind == frames.BEAT:
                self.send(frames.BEAT, 0, b"")
            elif kind == frames.CALL:
                self._call(ref, unpack_message(payload))
            elif ref in self.runs:
                self._steer(self.runs[ref], kind, payload)
            elif kind == frames.END:
                self.send(frames.ENDED, ref, NUMBER.pack(0))
        except FarError as error:
            self._fail(ref, error)
        except OSError as error:
            self._fail(ref, FarError("os", os.strerror(error.errno or 0), str(error.errno)))
        except ValueError as error:
            self._fail(ref, FarError("protocol", str(error)))

    def _fail(self, ref: int, error: FarError) -> None:
        texts = (error.code, error.text, *error.details)
        self.send(frames.FAILED, ref, pack_message([as_bytes(text) for text in texts]))

    def _steer(self, run: Run, kind: int, payload: bytes) -> None:
        if kind == frames.CREDIT:
            run.left += NUMBER.unpack(payload)[0]
            self._resume(run)
        elif kind == frames.INPUT:
            if payload:
                run.input.append(payload)
            else:
                run.eof_input = True
            self.feeding.give(run)
        elif kind == frames.END:
            from opsexec.far.tree_end import TreeEnd

            grace_s = NUMBER.unpack(payload)[0] / 1000.0
            run.ending = TreeEnd(run.launch.run, run.pid, grace_s, reaped=run.status is not None)
        elif kind == frames.RESIZE and run.terminal >= 0:
            resize(run.terminal, *SIZE.unpack(payload))

    # -- runs -----------------------------------------------------------------------------------------------------

    def _spawn(self, ref: int, launch: Launch) -> None:
        run = Run(ref, launch)
        if launch.term:
            run.pid, run.terminal, run.stdin = spawn_on_terminal(launch)
            run.outputs[run.terminal] = frames.OUTPUT
        else:
            run.pid, run.stdin, out, err = spawn_on_pipes(launch, self.null)
            run.outputs = {out: frames.OUTPUT, err: frames.ERRORS}
        self.runs[ref] = run
        for fd in run.outputs:
            self.readers[fd] = run
            self._watch(fd, select.POLLIN)
        if launch.stdin:
            run.input.append(launch.stdin)
        if run.stdin >= 0:
            run.eof_input = not launch.streams_stdin
            self.feeding.give(run)

    def _output(self, run: Run, fd: int) -> None:
        """Read one block; closes the pipe at its end."""
        if run.call is None and (run.left <= 0 or self.out.size > OUT_LIMIT):
            self._unwatch(fd)
            return
        if run.bulk and self._pass_on(run, fd):
            return
        try:
            data = os.read(fd, BLOCK if run.call is not None else min(BLOCK, run.left))
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose program is gone answers EIO instead of an end
                raise
            data = b""
        if not data:
            self._close_output(run, fd)
            self._maybe_finish(run)
            return
        if run.drain is not None:
            run.drain.heard(fd, len(data))
        if run.call is not None:
            run.call.append(data)
            return
        run.left -= len(data)
        if run.left <= 0:
            self._unwatch(fd)
        if len(data) >= BULK and not run.bulk and run.terminal < 0 and self.out.splices:
            run.bulk = widen(fd)
        self.send(run.outputs[fd], run.ref, data)

    def _pass_on(self, run: Run, fd: int) -> bool:
        """Send what stands in the pipe without reading it; False when that is too little to be worth it."""
        if self.out.holds(fd):
            self._unwatch(fd)
            return True
        size = min(waiting(fd), run.left)
        if size < BULK:
            return False
        run.left -= size
        if run.left <= 0:
            self._unwatch(fd)
        if run.drain is not None:
            run.drain.heard(fd, size)
        self.out.frame_from(run.outputs[fd], run.ref, fd, size)
        self._flush()
        return True

    def _resume(self, run: Run) -> None:
        if run.left > 0 and self.out.size <= OUT_LIMIT:
            for fd in run.outputs:
                self._watch(fd, select.POLLIN)

    def _close_output(self, run: Run, fd: int) -> None:
        self._unwatch(fd)
        self.out.take_in(fd)
        del run.outputs[fd]
        del self.readers[fd]
        os.close(fd)

    def _reap(self) -> None:
        for run in list(self.runs.values()):
            if run.status is not None:
                continue
            pid, status = os.waitpid(run.pid, os.WNOHANG)
            if pid:
                run.status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                for fd in list(run.outputs):
                    if run.left > 0 and fd in run.outputs:
                        self._output(run, fd)
                if run.outputs:
                    run.drain = Drain(run.outputs)
                self._maybe_finish(run)

    def _maybe_finish(self, run: Run, forced: bool = False) -> None:
        """Report the end once the program is gone and its output is read (or silent, held open by a child)."""
        if run.status is None or run.ref not in self.runs or run.ending is not None:
            return
        if run.outputs and not forced and not run.ended:
            return
        for fd in list(run.outputs):
            self._close_output(run, fd)
        self.feeding.close(run)
        del self.runs[run.ref]
        if run.call is None:
            self.send(frames.EXIT, run.ref, STATUS.pack(run.status))
        else:
            self._answer(run)

    # -- operations -----------------------------------------------------------------------------------------------

    def _call(self, ref: int, items: list[bytes]) -> None:
        """Do an operation in a child of its own: one that hangs on a dead disk can be ended like any run."""
        from opsexec.far.perform import perform_in_child

        run = Run(ref, Launch(f"operation-{ref}", (), (), (), {}))
        run.call = []
        run.pid, out = perform_in_child(items)
        run.outputs[out] = frames.OUTPUT
        self.runs[ref] = run
        self.readers[out] = run
        self._watch(out, select.POLLIN)

    def _answer(self, run: Run) -> None:
        """Pass on what the child answered: its first byte says whether it is an answer or a failure."""
        data = b"".join(run.call or ())
        if run.status != 0 or not data:
            self._fail(run.ref, FarError("operation_died", f"the operation's process ended with status {run.status}"))
        else:
            self.send(frames.ANSWER if data[:1] == b"a" else frames.FAILED, run.ref, data[1:])


def adopt(payload: bytes) -> None:
    """Give the bootstrap's importer more modules."""
    import zlib

    importer = sys.meta_path[0]
    importer.adopt(unpack_message(zlib.decompress(payload)))  # type: ignore[attr-defined]  # bootstrap.py's own


def main(nonce: str) -> None:
    """Serve the caller on stdin and stdout; the nonce is said first, so that noise before it can be skipped."""
    write_whole(1, nonce.encode())
    session = Session()
    version = ".".join(map(str, sys.version_info[:3]))
    session.send(
        frames.HELLO, 0, pack_message([frames.PROTOCOL, version.encode(), b"%d" % os.getpid(), b"%d" % os.geteuid()])
    )
    session.serve()
    os._exit(0)
