"""What an Executor promises: the protocol, what a run returns, where output goes, how trees are copied."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from opsexec.errors import StepFailed

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from opsexec.capability import CapabilitySet
    from opsexec.steps.base import Step
    from opsexec.steps.tty import Tty

Stream = Literal["stdout", "stderr"]
TAIL_BYTES = 64 << 10
"""How much of each stream a RunOutput keeps: its last 64 KiB. Everything passes the sink, whatever its size."""


class RunOutput(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one Step did.

    `stdout`, `stderr`: the last TAIL_BYTES of each; `stdout_bytes`, `stderr_bytes`: how many came in all; `truncated`:
    a tail is shorter than its stream; `digest`: of all of stdout, by SHA-256 where it is no longer than TAIL_BYTES, by
    BLAKE3 where it is (a detached run's always by SHA-256); `duration_s`: seconds, on the caller's clock. Exactly one
    of `exit_code` and `signal` is set for a process (a status that never came is an error, not a value); steps that
    start no process have exit_code 0. `changed`: the host is not as before (or, in check mode, would not be); `diff`:
    unified diff where there is one; `skipped`: why nothing was done; `value`: the typed answer.
    """

    run: str
    host: str
    exit_code: int | None = None
    signal: str | None = None
    duration_s: float = 0.0
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    digest: str = ""
    truncated: bool = False
    changed: bool = False
    diff: str | None = None
    skipped: str | None = None
    value: Any = None

    def __repr__(self) -> str:
        """One line, however much the program said."""
        how = self.signal or self.exit_code
        sizes = f"stdout {self.stdout_bytes} B, stderr {self.stderr_bytes} B"
        return f"<RunOutput {self.run} on {self.host}: {how}, {self.duration_s:.3f} s, {sizes}, changed={self.changed}>"

    @property
    def ok(self) -> bool:
        """True when nothing failed: exit status 0 and no signal."""
        return self.exit_code == 0

    @property
    def text(self) -> str:
        """The kept stdout as text; bytes that are not UTF-8 are shown as U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    def check(self) -> Self:
        """Return self, or raise StepFailed when the exit status isn't 0."""
        if self.ok:
            return self
        how = f"ended by {self.signal}" if self.signal else f"exit status {self.exit_code}"
        last = self.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        raise StepFailed(how + (f": {last}" if last else ""), output=self, host=self.host)


@runtime_checkable
class LogSink(Protocol):
    """Takes output while it is made. Awaiting is backpressure: the program stops writing until this returns."""

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take one block of a stream, in order within that stream."""
        ...


class EventStream(Protocol):
    """An async iterator of observations, each plain JSON data; close it with `aclose()`."""

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]: ...

    async def aclose(self) -> None: ...


class TtySession(Protocol):
    """An open terminal on the host."""

    async def read(self) -> bytes:
        """Return the next block of output; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send keystrokes."""
        ...

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program its new size, in characters."""
        ...

    async def wait(self) -> RunOutput:
        """Wait for the program to end."""
        ...

    async def aclose(self) -> None:
        """End the program and all it started."""
        ...


class SyncOpts(msgspec.Struct, frozen=True, kw_only=True):
    """How a tree is copied: as `Push` and `Pull` have it, plus `check` (predict, touch nothing)."""

    delete: bool = False
    excludes: tuple[str, ...] = ()
    bandwidth_bytes_s: int | None = None
    check: bool = False


class AuditSink(Protocol):
    """Takes audit records; raises AuditUnavailable when it can't, and then nothing runs."""

    def append(self, record: Mapping[str, Any]) -> object:
        """Record it before anyone acts on it."""
        ...


class Executor(Protocol):
    """Carries Steps to one host under one CapabilitySet."""

    @property
    def host(self) -> str:
        """The host's name, as errors and audit show it."""
        ...

    @property
    def capabilities(self) -> CapabilitySet:
        """What this executor may ask of the host."""
        ...

    async def run(
        self,
        step: Step,
        sink: LogSink | None = None,
        *,
        check: bool = False,
        diff: bool = False,
        stdin: AsyncIterator[bytes] | None = None,
    ) -> RunOutput:
        """Run one Step; raises StepFailed (which holds the output) when it ends with another status than 0.

        `check`: predict `changed` and the diff, touch nothing. `diff`: make the diff also when it does run.
        `stdin`: streamed to the program. Raises CapabilityDenied before anything is sent or opened.
        """
        ...

    async def run_streaming(
        self,
        step: Step,
        sink: LogSink | None = None,
        *,
        check: bool = False,
        diff: bool = False,
        stdin: AsyncIterator[bytes] | None = None,
    ) -> RunOutput:
        """As `run`, but an exit status is data, not an error."""
        ...

    async def push(self, src: str, dst: str, opts: SyncOpts | None = None) -> RunOutput:
        """Copy a local tree to the host."""
        ...

    async def pull(self, src: str, dst: str, opts: SyncOpts | None = None) -> RunOutput:
        """Copy a tree from the host."""
        ...

    def observe(self, *names: str, interval_s: float = 5.0) -> EventStream | None:
        """Follow the host; None where this executor can't."""
        ...

    async def open_tty(self, step: Tty) -> TtySession:
        """Open a terminal."""
        ...

    async def aclose(self) -> None:
        """End what still runs and close the transport."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
