"""`RecordedTerminal`: a terminal that goes on only as long as its recording does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.tty.live import LiveTape
from opsexec.errors import OpsError
from opsexec.executor import RunOutput, TtySession
from opsexec.recording_chain import Anchor
from opsexec.terminal import shell_status

if TYPE_CHECKING:
    from agent.config import RecordingLimits


class RecordedTerminal:
    """Implements TtySession over another one. `note` takes each link (into the audit) and may raise.

    Output is recorded before it is handed on, keys (where they are recorded at all) before they are passed down. When
    that fails, so does the terminal: its tree is ended, and `read` and `wait` raise why.
    """

    def __init__(
        self, session: TtySession, live: LiveTape, note: Callable[[Anchor], None], limits: RecordingLimits
    ) -> None:
        self._session = session
        self._live = live
        self._tape = live.tape
        self._note = note
        self._keys = limits.input
        self._link_s = limits.link_s
        self._failure: OpsError | None = None
        self._drained = asyncio.Event()
        self._look = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Make links as time goes by; end the terminal once it can't be recorded."""
        try:
            while not self._failed:
                try:
                    async with asyncio.timeout(self._link_s):
                        await self._look.wait()
                except TimeoutError:
                    self._look.clear()
                self._look.clear()
                if self._tape.chain.pending:
                    self._note(await self._tape.link())
        except OpsError as error:
            self._failure = error
        self._drained.set()
        await self._session.aclose()

    @property
    def _failed(self) -> bool:
        return self._failure is not None

    def _fail(self, error: OpsError) -> OpsError:
        self._failure = self._failure or error
        self._look.set()
        return self._failure

    async def read(self) -> bytes:
        """Return the next block of output, which is recorded by then; empty at the end."""
        data = b"" if self._drained.is_set() else await self._session.read()
        if self._failure is not None:
            raise self._failure
        if not data:
            self._drained.set()
            return b""
        try:
            self._tape.output(data)
        except OpsError as error:
            raise self._fail(error) from None
        self._live.grew()
        if self._tape.due:
            self._look.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send keystrokes."""
        if self._keys and self._failure is None:
            try:
                self._tape.typed(data)
            except OpsError as error:
                raise self._fail(error) from None
        await self._session.write(data)

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program its new size, in characters."""
        if self._failure is not None or self._live.over.is_set():
            return
        try:
            self._tape.resized(columns, rows)
        except OpsError as error:
            self._fail(error)
            return
        self._live.grew()
        self._session.resize(columns, rows)

    async def wait(self) -> RunOutput:
        """Wait for the program to end and its recording to be whole; called once, by who audits the end."""
        output: RunOutput | None = None
        failure: OpsError | None = None
        try:
            output = await self._session.wait()
            await self._drained.wait()
        except OpsError as error:
            failure = error
        self._keeper.cancel()
        await asyncio.wait([self._keeper])
        try:
            if self._failure is None:
                if output is not None:
                    self._tape.ended(shell_status(output))
                self._note(await self._tape.link(final=True))
        except OpsError as error:
            self._failure = error
        finally:
            self._tape.close()
            self._live.end()
        if self._failure is not None:
            raise self._failure
        if failure is not None:
            raise failure
        assert output is not None
        return output

    async def aclose(self) -> None:
        """End the program and all it started."""
        self._drained.set()
        await self._session.aclose()
