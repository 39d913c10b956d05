"""A terminal whose other end the far session holds: keystrokes, output, size, and its end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from opsexec.errors import StepTimeout
from opsexec.executor import RunOutput, Stream
from opsexec.far import frames
from opsexec.far.frames import SIZE
from opsexec.hosts.session import as_exit, as_launch
from opsexec.recorder import Recorder

if TYPE_CHECKING:
    from opsexec.hosts.port import ProcessSpec
    from opsexec.hosts.session import FarSession


SCREEN_BYTES = 1 << 20
"""Output that waits for a reader above which the program is held back."""

TOGETHER_BYTES = 128 << 10


class Screen:
    """The sink of a terminal's output: it waits here to be read; of a program that has ended, all of it."""

    def __init__(self) -> None:
        self._blocks: deque[bytes] = deque()
        self._size = 0
        self._free = False
        self._over = False
        self._dropping = False
        self._changed = asyncio.Event()

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take a block, once there is room for it."""
        while self._size >= SCREEN_BYTES and not self._free:
            await self._change()
        if not self._dropping:
            self._blocks.append(data)
            self._size += len(data)
            self._changed.set()

    async def read(self) -> bytes:
        """Return what waits, TOGETHER_BYTES of it or little more at most; empty at the end.

        A terminal hands its output on in pieces of 4 KiB: taken together, each costs its reader a fraction.
        """
        while not self._blocks and not self._over:
            await self._change()
        taken, size = [], 0
        while self._blocks and size < TOGETHER_BYTES:
            block = self._blocks.popleft()
            taken.append(block)
            size += len(block)
        self._size -= size
        self._changed.set()
        return taken[0] if len(taken) == 1 else b"".join(taken)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def take_all(self) -> None:
        """Hold nothing back any more: the program has ended, and what it said is not much more."""
        self._free = True
        self._changed.set()

    def drop(self) -> None:
        """Nobody reads on."""
        self._dropping = True
        self._blocks.clear()
        self.take_all()

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._changed.set()


class FarTerminal:
    """Implements TtySession over a far session."""

    def __init__(self, session: FarSession, spec: ProcessSpec, term: str, columns: int, rows: int) -> None:
        self._session = session
        self._screen = Screen()
        self._recorder = Recorder(self._screen, limit_bytes=spec.max_output_bytes)
        self._begun = time.monotonic()
        self._spec = spec
        self._run = session.start(as_launch(spec, True, term, columns, rows), self._recorder)
        self._ending = asyncio.create_task(self._follow())

    async def _follow(self) -> RunOutput:
        """Wait for the program's end."""
        try:
            over, _ = await asyncio.wait([self._run.done], timeout=self._spec.timeout_s)
            if not over:
                self._run.stop()
                await self._run.done
                raise StepTimeout(
                    f"no end after {self._spec.timeout_s:g} s; its process tree was ended",
                    host=self._session.host,
                    hint="raise timeout_s",
                )
            self._screen.take_all()
            status = self._run.done.result()
            if self._run.why is not None:
                raise self._run.why
            await self._recorder.finish()
        finally:
            self._session.forget(self._run)
            self._screen.end()
        ended = as_exit(status)
        return RunOutput(
            run=self._spec.run,
            host=self._session.host,
            exit_code=ended.exit_code,
            signal=ended.signal,
            duration_s=time.monotonic() - self._begun,
            stdout_bytes=self._recorder.counts[0],
            digest=self._recorder.digest,
            truncated=self._recorder.truncated,
            changed=True,
        )

    async def read(self) -> bytes:
        """Return the next block of output; empty at the end."""
        return await self._screen.read()

    async def write(self, data: bytes) -> None:
        """Send keystrokes; waits while the program doesn't take them."""
        await self._session.give(self._run, data)

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program its new size, in characters."""
        if not self._ending.done():
            self._session.send(frames.RESIZE, self._run.ref, SIZE.pack(columns, rows))

    async def wait(self) -> RunOutput:
        """Wait for the program to end."""
        return await asyncio.shield(self._ending)

    async def aclose(self) -> None:
        """End the program and all it started."""
        stopping = not self._run.done.done()
        if stopping:
            self._run.stop()
            self._screen.drop()
        await asyncio.wait([self._ending])
        if stopping:
            await self._session.await_end(self._run)
