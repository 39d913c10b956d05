"""Local commands with `os.posix_spawn`, two pipes and a pidfd under asyncio, and nothing else: the floor of a start."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from bench.contestants.protocol import job, report


class Start:
    """One command: done when both pipes are at their end and the process has ended."""

    def __init__(self, argv: list[str], null: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.done = self._loop.create_future()
        self.out = b""
        self.status = -1
        self._left = 3
        out, stdout = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        err, stderr = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        actions = [(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((null, stdout, stderr))]
        self._pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)
        os.close(stdout)
        os.close(stderr)
        pidfd = os.pidfd_open(self._pid)
        self._loop.add_reader(out, self._read, out)
        self._loop.add_reader(err, self._read, err)
        self._loop.add_reader(pidfd, self._ended, pidfd)

    def _read(self, fd: int) -> None:
        data = os.read(fd, 65536)
        self.out += data
        if not data:
            self._close(fd)

    def _ended(self, pidfd: int) -> None:
        self.status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._close(pidfd)

    def _close(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        os.close(fd)
        self._left -= 1
        if not self._left:
            self.done.set_result(None)


async def run(work: dict[str, Any]) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    gate = asyncio.Semaphore(work["in_flight"])

    async def one() -> None:
        async with gate:
            started = Start(work["argv"], null)
            await started.done
            assert (started.status, started.out) == (0, b"hello\n"), started.out

    await one()
    start = time.perf_counter()
    if work["in_flight"] == 1:
        for _ in range(work["count"]):
            await one()
    else:
        await asyncio.gather(*(one() for _ in range(work["count"])))
    each_s = (time.perf_counter() - start) / work["count"]
    report(each_ms=each_s * 1000, a_second=1 / each_s)


asyncio.run(run(job()))
