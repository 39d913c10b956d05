"""The caller's own end of a copy: a process in a session of its own, which ends with the copy however that ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence

from opsexec.far.launch import MARKER
from opsexec.hosts.watchdog import Watchdog

NOTICE_S = 0.2
"""Seconds in which it may notice by itself that its streams are closed: it removes half-written files then."""
GRACE_S = 0.5
"""Seconds between SIGTERM and SIGKILL: rsync sleeps 0.4 s before it heeds a signal (main.c, sig_int)."""
BLOCK = 65536
STDERR_LIMIT = 16384
"""How much of what it says about errors is kept: the beginning, where the reason is."""


class CopyProcess:
    """One started process. `stderr`: the first STDERR_LIMIT bytes; stdout goes to a callback block by block."""

    def __init__(
        self, process: asyncio.subprocess.Process, watchdog: Watchdog, slot: int, on_output: Callable[[bytes], None]
    ) -> None:
        self._process = process
        self._watchdog = watchdog
        self._slot = slot
        self.stderr = b""
        self._reading = asyncio.create_task(self._read_all(on_output))

    @classmethod
    async def start(
        cls,
        run: str,
        argv: Sequence[str],
        on_output: Callable[[bytes], None],
        *,
        pass_fds: Sequence[int],
        env: Mapping[str, str],
        stdin: bytes = b"",
    ) -> CopyProcess:
        """Start it, marked as this machine's end of `run`: should this process be killed, the watchdog ends it.

        The host's end has the run's own mark, so that on one machine neither end takes the other for its own.
        """
        mark = f"{run}.here"
        watchdog = Watchdog.get()
        slot = watchdog.open(mark)
        outer = os.environ.get(MARKER)
        # asyncio, cancelled while it starts a process, may wait for ever for pipes that it never joined. So the start
        # goes on to its end, and what it gives is ended.
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=pass_fds,
                env={**env, MARKER: f"{outer}/{mark}" if outer else mark},
                start_new_session=True,
            )
        )
        try:
            process = await asyncio.shield(starting)
        except BaseException:  # a cancellation as well: it may start all the same
            watchdog.done(slot)
            starting.add_done_callback(_give_up)
            await asyncio.wait([starting])
            raise
        watchdog.began(slot, mark, process.pid)
        if process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
        return cls(process, watchdog, slot, on_output)

    @property
    def status(self) -> int | None:
        """Its exit status, minus the number of the signal that ended it, or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it has ended and all it said is read."""
        await asyncio.wait([self._reading])
        return await self._process.wait()

    async def end(self) -> None:
        """End it and what it started, and leave nothing of it behind. Its streams are to be closed before."""
        try:
            for number, patience_s in ((signal.SIGTERM, NOTICE_S), (signal.SIGKILL, GRACE_S)):
                if not await self._ended_within(patience_s):
                    self._signal(number)
            await self._process.wait()
            await asyncio.wait([self._reading], timeout=GRACE_S)
        finally:
            if self.status is None:
                self._signal(signal.SIGKILL)
            self._reading.cancel()
            self._watchdog.done(self._slot)

    async def _ended_within(self, seconds: float) -> bool:
        """Wait that long for its end, which its streams are closed for already."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, number: int) -> None:
        """Its group holds all it started, and its number is its own as long as its status is None."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # ended this very moment

    async def _read_all(self, on_output: Callable[[bytes], None]) -> None:
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None
        assert stderr is not None
        complaining = asyncio.create_task(self._read_errors(stderr))
        try:
            while data := await stdout.read(BLOCK):
                on_output(data)
            await complaining
        finally:
            complaining.cancel()

    async def _read_errors(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(BLOCK):
            self.stderr += data[: STDERR_LIMIT - len(self.stderr)]


def _give_up(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    """End a process that nobody waits for any more, at once: it has not begun."""
    if not starting.cancelled() and starting.exception() is None and starting.result().returncode is None:
        starting.result().kill()
