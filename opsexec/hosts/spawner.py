"""`Spawner`: starts programs beside the event loop while others run, in one thread.

A start blocks its thread until the new process has become its program, which on busy processors takes as long as
everything else of a short step: in the loop, all other steps stand still for it (docs/decisions/0076). One thread, not
one a start: more of them only take the interpreter's lock from the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from opsexec.hosts.local_start import end

if TYPE_CHECKING:
    from opsexec.hosts.local_spawn import Child
    from opsexec.hosts.local_start import Start

LATE_S = 5.0
"""Seconds that a caller who gave up waits for a start that is under way, so as to end in order what it started."""


class _Job:
    """One start: `answer` for who asked; `over` for who gave up and waits to learn what came of it.

    `kept`: whether who gave up has what came of it all the same, and sees to its end; None until they have looked.
    """

    __slots__ = ("answer", "child", "failure", "kept", "over", "start")

    def __init__(self, start: Start, answer: asyncio.Future[Child]) -> None:
        self.start = start
        self.answer = answer
        self.over: asyncio.Future[None] | None = None
        self.child: Child | None = None
        self.failure: BaseException | None = None
        self.kept: bool | None = None

    def settle(self) -> None:
        """Tell who waits, in the loop; what nobody waits for any more is ended."""
        if not self.answer.done():
            if self.child is not None:
                self.answer.set_result(self.child)
            elif self.failure is not None:
                self.answer.set_exception(self.failure)
        elif self.over is not None and not self.over.done():
            self.over.set_result(None)
        elif self.kept is False:  # else who asked, cancelled in this turn of the loop, has it or is about to look
            try:
                threading.Thread(target=self.discard, name="opsexec-late-start", daemon=True).start()
            except RuntimeError:  # there is no thread to be had
                self.discard()

    def discard(self) -> None:
        """End it: nobody wants it any more. Blocks; what can't be ended is told to the loop, since nobody waits."""
        self.start.close()
        survivors = end(self.child, self.start.run) if self.child is not None else 0
        if survivors:
            loop = self.answer.get_loop()
            text = f"{survivors} processes of run {self.start.run}, which began after it was given up, can't be ended"
            with suppress(RuntimeError):  # the loop is closed: there is nobody to tell
                loop.call_soon_threadsafe(loop.call_exception_handler, {"message": text})


class Spawner:
    """Starts programs for the running loop. Its thread begins with the first of them, and holds up nobody's end."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._done: deque[_Job] = deque()
        self._telling = False

    async def spawn(self, start: Start) -> tuple[Child, asyncio.CancelledError | None]:
        """Return the child of `start.spawn()`, called in the thread; where that raises, the start is closed.

        Where there is no thread to be had it is called here. A cancellation waits for a start that is under way, and
        comes back beside the child: ending that, and raising it then, is the caller's. What takes longer than LATE_S
        is ended as soon as it is there.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="opsexec-spawner", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return start.spawn_or_close(), None
            self._thread = thread
        job = _Job(start, self.loop.create_future())
        self._jobs.put(job)
        try:
            return await job.answer, None
        except asyncio.CancelledError as error:
            if job.child is None and job.failure is None:
                await self._come_what_may(job)
            job.kept = job.child is not None
            if job.child is None:
                raise
            return job.child, error
        finally:
            if job.failure is not None:
                job.kept = True
                start.close()

    def close(self) -> None:
        """Let the thread go, after what it was asked for."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread = None

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.child = job.start.spawn()
            except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised where the start was asked for
                job.failure = error
            self._done.append(job)
            if not self._telling:  # else the loop is about to look, and will find this one too
                self._telling = True
                try:
                    self.loop.call_soon_threadsafe(self._settle)
                except RuntimeError:  # the loop is closed: nobody waits any more
                    while self._done:
                        left = self._done.popleft()
                        if not left.kept:
                            left.discard()

    def _settle(self) -> None:
        self._telling = False
        while self._done:
            self._done.popleft().settle()

    async def _come_what_may(self, job: _Job) -> None:
        """Wait until a start has come to something, for at most LATE_S, however often that is cancelled."""
        job.over = self.loop.create_future()
        timer = self.loop.call_later(LATE_S, job.over.cancel)
        while not job.over.done():
            try:
                await asyncio.wait([job.over])
            except asyncio.CancelledError:
                continue  # what has begun is still to be ended, and is about to be there
        timer.cancel()
