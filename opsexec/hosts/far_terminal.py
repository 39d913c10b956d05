"""A terminal whose other end the far session holds: keystrokes, output, size, and its end."""

from __future__ import annotations

import asyncio
import time
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


class _Screen:
    """The sink of a terminal's output: one block at a time waits to be read, the rest waits on the host."""

    def __init__(self) -> None:
        self.blocks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=16)
        self.over = False

    async def write(self, stream: Stream, data: bytes) -> None:
        await self.blocks.put(data)

    def end(self) -> None:
        """Let a reader who waits, or comes later, see the end; where blocks still wait it sees those first."""
        self.over = True
        if self.blocks.empty():
            self.blocks.put_nowait(b"")


class FarTerminal:
    """Implements TtySession over a far session."""

    def __init__(self, session: FarSession, spec: ProcessSpec, term: str, columns: int, rows: int) -> None:
        self._session = session
        self._screen = _Screen()
        self._recorder = Recorder(self._screen, limit_bytes=spec.max_output_bytes)
        self._begun = time.monotonic()
        self._spec = spec
        self._run = session.start(as_launch(spec, True, term, columns, rows), self._recorder)
        self._ending = asyncio.create_task(self._follow())

    async def _follow(self) -> RunOutput:
        """Wait for the program's end; the last thing on the screen is an empty block."""
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
        if self._screen.over and self._screen.blocks.empty():
            return b""
        return await self._screen.blocks.get()

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
        dropping = asyncio.create_task(self._drop_output())  # nobody reads on, and the end comes after the output
        await asyncio.wait([self._ending])
        dropping.cancel()
        if self._screen.blocks.empty():
            self._screen.blocks.put_nowait(b"")  # for a reader who still waits: the end may have been dropped
        if stopping:
            await self._session.await_end(self._run)

    async def _drop_output(self) -> None:
        while True:
            await self._screen.blocks.get()
