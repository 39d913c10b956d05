"""The port between handlers and machines: run a process, do a file operation, copy a tree, open a terminal.

Handlers know nothing else of a host. `local.py` and `ssh.py` implement it, and `opsexec.testing` ships a fake one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    import asyncssh

    from opsexec.executor import RunOutput, TtySession
    from opsexec.recorder import Recorder


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process to start on the host, everything decided.

    `programs`: absolute candidates for argv[0], in order; the host takes the first that exists, and runs it only if
    it is among `admitted`. `argv`: all words. `env`: revealed, added to the host's minimal one. `stdin`: bytes, or
    None for an empty one. `run_as`: None = the login. `run`: the id that marks the tree. `timeout_s`: seconds, None
    = none. `max_output_bytes`: of a terminal; a program's stand in its recorder.
    """

    run: str
    programs: tuple[str, ...]
    admitted: tuple[str, ...]
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    cwd: str | None = None
    stdin: bytes | None = None
    run_as: str | None = None
    timeout_s: float | None = None
    max_output_bytes: int | None = None

    def __repr__(self) -> str:
        """Neither environment nor input: secrets stand in them revealed."""
        return f"<ProcessSpec {self.run}: {self.argv[0]} and {len(self.argv) - 1} words, {len(self.env)} variables>"


class ProcessExit(msgspec.Struct, frozen=True):
    """How a process ended: exactly one of `exit_code` and `signal` (its name, like "SIGKILL") is set."""

    exit_code: int | None
    signal: str | None


class SyncPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One tree to copy, everything decided. `grants`: path patterns layer by layer, checked on the host after links.

    `direction`: push = local to remote. `diff`: list every changed entry. Other fields as in `opsexec.steps.sync`.
    """

    run: str
    direction: Literal["push", "pull"]
    local: str
    remote: str
    grants: tuple[tuple[str, ...], ...]
    delete: bool = False
    excludes: tuple[str, ...] = ()
    bandwidth_bytes_s: int | None = None
    check: bool = False
    run_as: str | None = None
    timeout_s: float | None = None


class SyncResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy changed: itemised lines (`rsync --itemize-changes` form), and which mechanism carried it.

    `count`: how many lines there are in all, when not all are listed; None = these. `skipped`: sentences about entries
    left out on purpose: special files, and links that lead out of what a host sends.
    """

    changes: tuple[str, ...]
    method: Literal["rsync", "tar"]
    count: int | None = None
    skipped: tuple[str, ...] = ()


class Host(Protocol):
    """One machine, as handlers see it."""

    @property
    def name(self) -> str:
        """How errors name it."""
        ...

    async def run_process(
        self, spec: ProcessSpec, recorder: Recorder, stdin: AsyncIterator[bytes] | None = None
    ) -> ProcessExit:
        """Run a process to its end, feeding its output to `recorder`.

        Cancelling this, a passed deadline (StepTimeout) and a lost caller end its whole process tree.
        Raises CapabilityDenied when the program found is not admitted, StepFailed when there is none.
        """
        ...

    async def call(self, operation: str, args: Sequence[bytes], *, run_as: str | None = None) -> list[bytes]:
        """Do one operation of `opsexec.far.operations` on the host and return its answer; a message is a list of bytes.

        Raises what `opsexec.hosts.answers` maps the far side's error to.
        """
        ...

    async def sync(self, plan: SyncPlan) -> SyncResult:
        """Copy a tree."""
        ...

    async def open_tty(self, spec: ProcessSpec, term: str, columns: int, rows: int) -> TtySession:
        """Start a process on a new terminal."""
        ...

    async def aclose(self) -> None:
        """End what runs and let go of the machine."""
        ...


@runtime_checkable
class Behind(Protocol):
    """A host behind an SSH connection."""

    async def connection(self) -> asyncssh.SSHClientConnection:
        """Return the open connection."""
        ...


__all__ = ["Behind", "Host", "ProcessExit", "ProcessSpec", "RunOutput", "SyncPlan", "SyncResult"]
