"""A terminal whose end reaches the audit, whoever waits for it or doesn't; and what a shell would say of its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from opsexec.errors import OpsError

if TYPE_CHECKING:
    from opsexec.executor import RunOutput, TtySession


def shell_status(output: RunOutput) -> int:
    """Return the status a shell would show: the exit code, or 128 + the signal's number (128 for one unknown here)."""
    if output.signal is None:
        return output.exit_code or 0
    number = signal.Signals.__members__.get(output.signal, 0)
    return 128 + number


class AuditedTerminal:
    """Implements TtySession over another one.

    Exactly one of `on_end` (with what `wait` returns) and `on_failure` (with what it raises) is called, once,
    when the program has ended. What they raise themselves (no audit) is raised by `wait` and `aclose`.
    """

    def __init__(
        self,
        session: TtySession,
        on_end: Callable[[RunOutput], None],
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._session = session
        self._on_end = on_end
        self._on_failure = on_failure
        self._failure: OpsError | None = None
        self._end = asyncio.create_task(self._follow())

    async def _follow(self) -> RunOutput | None:
        """Report the end. The run's own error is kept for `wait`: this task fails when reporting does."""
        try:
            output = await self._session.wait()
        except BaseException as error:  # a cancellation as well: a program left its loop with the terminal open
            if self._on_failure is not None:
                self._on_failure(error)
            if not isinstance(error, OpsError):
                raise
            self._failure = error
            return None
        self._on_end(output)
        return output

    async def read(self) -> bytes:
        """Return the next block of output; empty at the end."""
        return await self._session.read()

    async def write(self, data: bytes) -> None:
        """Send keystrokes."""
        await self._session.write(data)

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program its new size, in characters."""
        self._session.resize(columns, rows)

    async def wait(self) -> RunOutput:
        """Wait for the program to end; raises ConnectionLost or StepTimeout, or AuditUnavailable."""
        output = await asyncio.shield(self._end)
        if output is None:
            assert self._failure is not None
            raise self._failure
        return output

    async def aclose(self) -> None:
        """End the program and all it started; raises AuditUnavailable when its end could not be recorded."""
        await self._session.aclose()
        await asyncio.shield(self._end)
