"""`Aside`: blocking calls beside the event loop, in threads that hold up nobody, not even the end of the process.

The loop's own executor waits for its threads when the loop ends: one call on a file system that hangs (a server that is
gone, a stopped FUSE daemon) would then hang the whole process, whatever the step's deadline was.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from opsexec.errors import HostUnsuitable

T = TypeVar("T")


class _Idle:
    """Workers that wait for a call. `closed`: nobody asks them any more."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []
        self.closed = False


class Aside:
    """Threads that do calls for one event loop; there are as many as calls were under way at once."""

    def __init__(self) -> None:
        self._idle = _Idle()

    async def do(self, call: Callable[[], T]) -> T:
        """Do it and return its answer; raises what it raises, and HostUnsuitable where no thread is to be had for it.

        Cancelling stops the wait, not the call.
        """
        idle = self._idle
        worker = idle.workers.pop() if idle.workers else _Worker.begun(idle)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        worker.jobs.put((answer, call))
        return await answer

    def close(self) -> None:
        """Let the idle threads go; one that is in a call goes after it."""
        idle, self._idle = self._idle, _Idle()
        idle.closed = True
        for worker in idle.workers:
            worker.jobs.put(None)


class _Worker:
    """One thread. After a call it is idle again, unless nobody is left who could ask it."""

    def __init__(self, idle: _Idle) -> None:
        self.jobs: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = idle

    @classmethod
    def begun(cls, idle: _Idle) -> _Worker:
        """Return one whose thread runs; raises HostUnsuitable."""
        worker = cls(idle)
        try:
            threading.Thread(target=worker._serve, name="opsexec-aside", daemon=True).start()
        except RuntimeError as error:
            hint = "look at the limits on processes of this user and of its control group"
            raise HostUnsuitable("this process can have no more threads", hint=hint) from error
        return worker

    def _serve(self) -> None:
        while (job := self.jobs.get()) is not None:
            answer, call = job
            value: Any = None
            failure: BaseException | None = None
            try:
                value = call()
            except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised where the call was asked for
                failure = error
            try:
                answer.get_loop().call_soon_threadsafe(self._settle, answer, value, failure)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _settle(self, answer: asyncio.Future[Any], value: Any, failure: BaseException | None) -> None:
        if self._idle.closed:
            self.jobs.put(None)
        else:
            self._idle.workers.append(self)
        if answer.done():
            return
        if failure is None:
            answer.set_result(value)
        else:
            answer.set_exception(failure)
