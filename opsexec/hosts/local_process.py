"""One local process under asyncio: pipes read straight by the loop, its end learnt from a pidfd.

`asyncio.create_subprocess_exec` costs half as much again: it starts a thread to wait for each process on Python 3.11,
and its transports read through two more layers. It is started by vfork either way, so the size of this process doesn't
matter.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from opsexec.far.drain import SILENCE_S, Drain
from opsexec.far.launch import Launch
from opsexec.far.message import FarError
from opsexec.far.spawn import pipes
from opsexec.hosts.local_spawn import Child, Streams, start

if TYPE_CHECKING:
    from opsexec.hosts.poller import Poller
    from opsexec.recorder import Recorder

BLOCK = 64 << 10
"""What a pipe holds (pipe(7)): asking for more only allocates more."""
WIDE_BLOCK = 256 << 10
"""What the pipe of a program that fills one is made to hold: a fourth of the turns around the loop for much output."""


class LocalProcess:
    """A started process. `status` is its exit code, or minus the signal's number, once `wait` returned."""

    def __init__(self, launch: Launch, recorder: Recorder, poller: Poller, kept: Mapping[str, str]) -> None:
        program = launch.program()
        wants_input = launch.streams_stdin or bool(launch.stdin)
        try:
            (out, stdout), (err, stderr), *third = pipes(3 if wants_input else 2)
        except OSError as error:
            raise _start_error(error, launch, program) from error
        stdin, into = third[0] if third else (_null(), -1)
        try:
            self._child = _start(launch, program, kept, (stdin, stdout, stderr))
            self._pidfd = _watch(self._child)
        except BaseException as error:
            for fd in (out, err, into):
                if fd >= 0:
                    os.close(fd)
            if isinstance(error, OSError):
                raise _start_error(error, launch, program) from error
            raise
        finally:
            for fd in (stdout, stderr, stdin) if third else (stdout, stderr):
                os.close(fd)
        self.pid = self._child.pid
        self.status: int | None = None
        self.why: BaseException | None = None
        self._recorder = recorder
        self._loop = poller.loop
        self._poller = poller
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._open: dict[int, int] = {}
        self._paused: set[int] = set()
        self._block: dict[int, int] = {}
        self._drain: Drain | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._input: deque[bytes] = deque()
        self._room = asyncio.Event()
        poller.add(self._pidfd, self._exited)
        for fd, stream in ((out, 0), (err, 1)):
            os.set_blocking(fd, False)
            self._open[fd] = stream
            poller.add(fd, self._readable)
        recorder.on_drain = self._resume
        recorder.on_failure = self._stop_waiting
        self._stdin = into
        if wants_input:
            os.set_blocking(into, False)
            if launch.stdin:
                self._give(launch.stdin)
            if not launch.streams_stdin:
                self._give(b"")

    def stop(self, why: BaseException) -> None:
        """Let `wait` return although the process runs on: its tree is to be ended, for this reason."""
        self.why = self.why or why
        self._stop_waiting()

    async def wait(self) -> None:
        """Wait until the process ended and its output is read, or its output limit is passed, or its sink failed."""
        await self._over

    # -- output ---------------------------------------------------------------------------------------------------

    def _readable(self, fd: int) -> None:
        try:
            data = os.read(fd, self._block.get(fd, BLOCK))
        except BlockingIOError:
            return
        if len(data) == BLOCK and fd not in self._block:
            self._block[fd] = _widen(fd)
        if not data:
            self._close_output(fd)
            self._maybe_over()
            return
        if self._drain is not None:
            self._drain.heard(fd, len(data))
        if not self._recorder.feed(self._open[fd], data):
            self._paused.add(fd)
            self._poller.remove(fd)
        if self._recorder.over_limit:
            self._stop_waiting()

    def _resume(self) -> None:
        for fd in self._paused:
            if fd in self._open:
                self._poller.add(fd, self._readable)
        self._paused.clear()

    def _close_output(self, fd: int) -> None:
        self._poller.remove(fd)
        del self._open[fd]
        os.close(fd)

    # -- the end --------------------------------------------------------------------------------------------------

    def _exited(self, pidfd: int) -> None:
        self._poller.remove(pidfd)
        os.close(pidfd)
        self._pidfd = -1
        self.status = self._child.wait()
        for fd in list(self._open):
            if fd not in self._paused:
                self._readable(fd)
        if self._open and not self._over.done():
            self._drain = Drain(self._open)
            self._quiet = self._loop.call_later(SILENCE_S, self._silent)
        self._maybe_over()

    def _silent(self) -> None:
        """A child that lives on may hold the pipes open: stop once nothing more is to be waited for."""
        assert self._drain is not None
        wait = SILENCE_S if self._paused else self._drain.wait(self._open)  # paused: it's the sink that is slow
        if wait:
            self._quiet = self._loop.call_later(wait, self._silent)
            return
        for fd in list(self._open):
            self._close_output(fd)
        self._maybe_over()

    def _maybe_over(self) -> None:
        if self.status is not None and not self._open:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if self.status is not None and not self._open:
            self._close_stdin()
        if not self._over.done():
            self._over.set_result(None)

    async def close(self) -> None:
        """Let go of every file descriptor once the tree has been ended; reaps the leader."""
        self._stop_waiting()
        self._close_stdin()
        for fd in list(self._open):
            self._close_output(fd)
        if self._pidfd >= 0:
            self._poller.remove(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            self.status = self._child.poll()

    # -- input ----------------------------------------------------------------------------------------------------

    async def feed(self, blocks: AsyncIterator[bytes]) -> None:
        """Write blocks to the program as it takes them, then end its input."""
        async for block in blocks:
            if self._stdin < 0:
                return
            if not block:
                continue  # an empty block in the queue is its end
            self._give(block)
            while self._input:
                self._room.clear()
                await self._room.wait()
        self._give(b"")

    def _give(self, data: bytes) -> None:
        """Queue a block and write what fits; an empty block ends the input."""
        if self._stdin < 0:
            return
        waiting = bool(self._input)
        self._input.append(data)
        if not waiting:
            self._writable()

    def _writable(self) -> None:
        queue = self._input
        try:
            while queue:
                block = queue[0]
                if not block:
                    self._close_stdin()
                    return
                done = os.write(self._stdin, block)
                if done < len(block):
                    queue[0] = block[done:]
                else:
                    queue.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._stdin, self._writable)
            return
        except BrokenPipeError:  # the program closed its stdin: the rest has no reader
            self._close_stdin()
            return
        self._loop.remove_writer(self._stdin)
        self._room.set()

    def _close_stdin(self) -> None:
        self._input.clear()
        self._room.set()
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1


def _start(launch: Launch, program: str, kept: Mapping[str, str], streams: Streams) -> Child:
    """Start the program in its working directory; without one named, at home, or at / where home can't be entered."""
    environment = launch.environment(kept)
    home = kept.get("HOME") or "/"
    try:
        return start(program, launch.argv, environment, launch.cwd or home, streams)
    except OSError as error:
        if launch.cwd or home == "/" or error.filename != home:
            raise
    return start(program, launch.argv, environment, "/", streams)


def _widen(pipe: int) -> int:
    """Let a pipe hold more and return how much; it stays as it is for a user whose pipes hold too much (pipe(7))."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, WIDE_BLOCK)
    except OSError:
        return BLOCK


def _watch(child: Child) -> int:
    """Return a pidfd of a process that was just started; where there is none to be had it is not left running."""
    try:
        return os.pidfd_open(child.pid)
    except OSError:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise


@cache
def _null() -> int:
    """Return this process's open /dev/null, the stdin of programs that are given none."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _start_error(error: OSError, launch: Launch, program: str) -> FarError:
    if launch.cwd and error.filename == launch.cwd:
        return FarError("no_cwd", f"can't enter {launch.cwd}: {os.strerror(error.errno or 0)}", launch.cwd)
    return FarError("no_start", f"can't start {program}: {os.strerror(error.errno or 0)}", program)
