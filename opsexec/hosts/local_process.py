"""One local process under asyncio: pipes read straight by the loop, its end learnt from a pidfd.

`asyncio.create_subprocess_exec` costs half as much again: it starts a thread to wait for each process on Python 3.11,
and its transports read through two more layers. It is started by vfork either way, so the size of this process doesn't
matter.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

from opsexec.errors import OpsError
from opsexec.far.drain import SILENCE_S, Drain
from opsexec.hosts.local_start import BLOCK, widen

if TYPE_CHECKING:
    from opsexec.far.launch import Launch
    from opsexec.hosts.local_start import Started
    from opsexec.hosts.poller import Poller
    from opsexec.recorder import Recorder

LOST = "wait for your own children by their pid, and don't ignore SIGCHLD"


class LocalProcess:
    """A started process. `status` is its exit code, or minus the signal's number, once `wait` returned.

    `reaped`: its pid may be another process's by now.
    """

    def __init__(self, started: Started, launch: Launch, recorder: Recorder, poller: Poller) -> None:
        self._child = started.child
        self._pidfd = started.pidfd
        self.pid = started.child.pid
        self.status: int | None = None
        self.reaped = False
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
        for fd, stream in ((started.stdout, 0), (started.stderr, 1)):
            self._open[fd] = stream
            poller.add(fd, self._readable)
        recorder.on_drain = self._resume
        recorder.on_failure = self._stop_waiting
        self._stdin = started.stdin
        if started.stdin >= 0:
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
            self._block[fd] = widen(fd)
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
        self.reaped = True
        try:
            self.status = self._child.wait()
        except ChildProcessError:
            self.stop(OpsError("the program ended; with what status, another part of this process knows", hint=LOST))
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
            with suppress(ChildProcessError):  # what ends it here has said why
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
