"""`MarkedHost`: this machine, where one run's processes carry a mark that the agent chose.

A run's id is its caller's choice and names it in the audit. Were it the mark too, a caller could choose another run's,
and have that one's processes ended or signalled with its own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from opsexec.executor import TtySession
    from opsexec.hosts.local import LocalHost
    from opsexec.hosts.port import ProcessExit, ProcessSpec, SyncPlan, SyncResult
    from opsexec.recorder import Recorder


def new_mark() -> str:
    """Return a mark that nobody can guess."""
    return os.urandom(16).hex()


class MarkedHost:
    """Implements the Host port over a LocalHost that many runs share; closing it is the agent's."""

    def __init__(self, host: LocalHost, mark: str) -> None:
        self._host = host
        self._mark = mark

    @property
    def name(self) -> str:
        """How errors name it."""
        return self._host.name

    async def run_process(
        self, spec: ProcessSpec, recorder: Recorder, stdin: AsyncIterator[bytes] | None = None
    ) -> ProcessExit:
        """As `Host.run_process`, under the mark."""
        return await self._host.run_process(msgspec.structs.replace(spec, run=self._mark), recorder, stdin)

    async def call(self, operation: str, args: Sequence[bytes], *, run_as: str | None = None) -> list[bytes]:
        """As `Host.call`."""
        return await self._host.call(operation, args, run_as=run_as)

    async def sync(self, plan: SyncPlan) -> SyncResult:
        """As `Host.sync`, under the mark."""
        return await self._host.sync(msgspec.structs.replace(plan, run=self._mark))

    async def open_tty(self, spec: ProcessSpec, term: str, columns: int, rows: int) -> TtySession:
        """As `Host.open_tty`, under the mark."""
        return await self._host.open_tty(msgspec.structs.replace(spec, run=self._mark), term, columns, rows)

    async def aclose(self) -> None:
        """Nothing here is this run's alone."""
