"""The processes below a supervisor that may be PID 1: started without a spare descriptor, and every one of them reaped.

asyncio's own subprocesses are waited for one by one; a first process also gets the orphans of others (wait(2)), so here
one handler of SIGCHLD takes whoever ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

LINE = 1 << 20
NOT_STARTED = 127
DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


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
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    async def start(self, argv: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start a program on three pipes of its own, as the leader of a group. Raises OSError."""
        loop = asyncio.get_running_loop()
        pid, into, out, err = _spawn(argv, env)
        # Known before anything is awaited: it may end at once.
        self._running[pid] = child = Child(pid)
        child.stdin = await _writing(loop, into)
        child.outputs = [await _reading(loop, fd) for fd in (out, err)]
        return child

    def _reap(self) -> None:
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


def _spawn(argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, int, int, int]:
    """Return the pid, and our ends of its three pipes."""
    (stdin, into), (out, stdout), (err, stderr) = [os.pipe() for _ in range(3)]
    theirs = (stdin, stdout, stderr)
    actions = [(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate(theirs)]
    try:
        pid = os.posix_spawnp(
            argv[0], list(argv), dict(env), file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=DEFAULTS
        )
    except OSError:
        for fd in (into, out, err):
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return pid, into, out, err


async def _writing(loop: asyncio.AbstractEventLoop, fd: int) -> asyncio.WriteTransport:
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(fd, "wb", buffering=0))
    return transport


async def _reading(loop: asyncio.AbstractEventLoop, fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0))
    return reader
