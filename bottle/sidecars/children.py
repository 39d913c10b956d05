"""The processes below a supervisor that may be PID 1: started without a spare descriptor, and every one of them reaped.

asyncio's own subprocesses are waited for one by one; a first process also gets the orphans of others (wait(2)), so here
one handler of SIGCHLD takes whoever ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from bottle.sidecars.spawning import Spawned

LINE = 1 << 20
NOT_STARTED = 127


class Child:
    """One process. `ended`: its exit status, or the negative number of the signal that ended it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.stdin: asyncio.WriteTransport | None = None
        self.outputs: list[asyncio.StreamReader] = []
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has been reaped: its number may be another's by now."""
        if not self.ended.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def sweep(self) -> None:
        """Kill what is left of the group it led."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Children:
    """All of them. One to a process: it owns SIGCHLD."""

    def __init__(self) -> None:
        self._running: dict[int, Child] = {}
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    async def adopt(self, spawned: Spawned) -> Child:
        """Take a process that was just started."""
        loop = asyncio.get_running_loop()
        # Known before anything is awaited: it may end at once.
        self._running[spawned.pid] = child = Child(spawned.pid)
        child.stdin = await _writing(loop, spawned.stdin)
        child.outputs = [await _reading(loop, fd) for fd in (spawned.stdout, spawned.stderr)]
        return child

    def reap(self) -> None:
        """Take everyone who ended; also those who did before anybody listened for it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._running.pop(pid, None)
            if child is not None and not child.ended.done():
                child.ended.set_result(os.waitstatus_to_exitcode(status))


async def _writing(loop: asyncio.AbstractEventLoop, fd: int) -> asyncio.WriteTransport:
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(fd, "wb", buffering=0))
    return transport


async def _reading(loop: asyncio.AbstractEventLoop, fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0))
    return reader
