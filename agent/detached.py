"""Starting detached runs, following them, and putting their outcome in the audit, whoever started them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from agent.asker import LAYER, Asker
from agent.marked_host import new_mark
from agent.run_store import LOST, RunRecord, RunStatus, RunStore, whole_frames
from agent.say import say
from opsexec.audit_heads.lines import with_outcome
from opsexec.capability import CapabilitySet
from opsexec.errors import (
    AuditUnavailable,
    BadStep,
    HostUnsuitable,
    LimitExceeded,
    OpsError,
    PrivilegeDenied,
    ProtocolError,
    StepFailed,
    StepTimeout,
)
from opsexec.executor import AuditSink
from opsexec.far.frames import GRACE_S
from opsexec.far.tree_end import end_now
from opsexec.handlers.context import Context
from opsexec.handlers.process import specify
from opsexec.host_executor import HostExecutor
from opsexec.hosts.answers import as_error
from opsexec.hosts.local import LocalHost
from opsexec.hosts.session import as_exit, as_launch
from opsexec.principal import local_principal
from opsexec.recorder import Recorder
from opsexec.steps.base import Step
from opsexec.steps.process import Process
from opsexec.steps.registry import encode_step, redact
from opsexec.wire import Result

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import Limits

LOOK_S = 0.1
"""Seconds between looks at runs that go on; a follower of a run's output looks twice as often."""

LATE_S = 2.0
"""Seconds a runner may be late with the end of a run whose time is up before it is taken for stopped, and woken."""

FOLLOW_BLOCK = 256 << 10


class Starter(HostExecutor):
    """Admits and audits a step as any executor does, and starts it to live on instead of waiting for it."""

    def __init__(
        self, host: LocalHost, held: CapabilitySet, audit: AuditSink, asker: Asker, run: str, store: RunStore
    ) -> None:
        super().__init__(host, held, audit, principal=asker.principal, listener=asker.listener, layer=LAYER, run=run)
        self._asker = asker
        self._store = store

    def require_startable(self, step: Step) -> tuple[Process, str, float | None]:
        """Return it as what can be started, its user and its bound in seconds; raises what it is refused for already.

        Nothing of that is in the audit.
        """
        if not isinstance(step, Process):
            raise BadStep(f"a {type(step).__name__} step can't be detached", hint="detach an Exec or a Shell")
        if step.creates is not None:
            raise BadStep("`creates` and detach don't go together", hint="look with Stat first")
        return step, _user(step.run_as), self._capabilities.clamp_timeout(step.timeout_s, host=self.host)

    async def start(self, step: Step, run: str, limits: Limits) -> None:
        """Start the step under this run id; raises what refuses it. From the allow line on the run has a record."""
        step, user, timeout_s = self.require_startable(step)
        record = RunRecord(
            run=run,
            mark=new_mark(),
            principal=self._asker.principal,
            listener=self._asker.listener,
            step=redact(step),
            begun=time.time(),
            request=request_digest(step),
            timeout_s=timeout_s,
        )
        _, base = self._admit(step)

        async def begin() -> None:
            try:
                _require_there(user)
                held = self._capabilities
                context = Context(run=record.mark, host=self._host, capabilities=held, recorder=Recorder())
                launch = as_launch(specify(step, context), streams_stdin=False).pack()
                quota = min(limits.max_run_log_bytes, held.max_output_bytes or limits.max_run_log_bytes)
                lock = await asyncio.to_thread(self._store.create, record)  # a slow disk is nobody else's matter
            except BaseException as error:  # whatever stops it, the audit has the allowed step's end
                self._record_failure(base, Recorder(), error, 0.0)
                raise
            await asyncio.to_thread(self._store.start, run, lock, launch, user, quota, timeout_s)

        await self._store.begin(run, begin())


def request_digest(step: Step) -> str:
    """Return what tells one request from another."""
    try:
        packed = encode_step(step)
    except UnicodeEncodeError:
        packed = repr(msgspec.to_builtins(step)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(packed).hexdigest()


def _user(run_as: str | None) -> str:
    """Return the user the runner must become, "" for its own; raises PrivilegeDenied where it can't."""
    if run_as is None or f"unix:{run_as}" == local_principal():
        return ""
    if os.geteuid() != 0:
        raise PrivilegeDenied("only an agent of root's detaches runs as another user", hint="don't detach, or ask root")
    return run_as


def _require_there(user: str) -> None:
    """Raise PrivilegeDenied for a user this host doesn't know; "" is the agent's own."""
    try:
        pwd.getpwnam(user) if user else None
    except KeyError as error:
        raise PrivilegeDenied(f"there is no user {user!r}", hint="name an existing user") from error


class Detached:
    """All detached runs of one agent: a watch that settles what has ended, also what an earlier agent started."""

    def __init__(self, store: RunStore, audit: AuditSink, host: str, limits: Limits) -> None:
        self.store = store
        self.limits = limits
        self._audit = audit
        self._host = host
        self._live: dict[str, RunRecord] = {}
        self._late: dict[str, float] = {}
        self._work = asyncio.Event()
        self._settled: dict[str, asyncio.Event] = {}
        self._told: dict[str, list[asyncio.Future[RunStatus]]] = {}
        self._recorded: set[str] = set()
        self.spared: set[str] = set()
        """Runs that are not forgotten however old they are: someone has yet to note how they ended."""

    def recover(self, log: Path) -> int:
        """Take up every run that has no outcome in the audit yet, which is kept at `log`; returns how many.

        An agent that died between recording an outcome and noting that it had left the note to be made here.
        """
        self.store.clear_unwritten()
        open_runs = [record for record in self.store.records() if not self.store.is_settled(record.run)]
        ended = {record.run: record for record in open_runs if self.store.status(record.run) is not None}
        recorded = with_outcome(log, ended, min((record.begun for record in ended.values()), default=0.0))
        for record in open_runs:
            if record.run in recorded:
                try:
                    self.store.settle(record.run, self.store.status(record.run) or LOST)
                    continue
                except OSError as error:  # no room: an agent begins all the same
                    say(f"the end of run {record.run} can't be seen to yet: {error}")
                    self._recorded.add(record.run)
            self.watch(record)
        return len(self._live)

    def watch(self, record: RunRecord) -> None:
        """Settle a run once it has ended; a run that is watched already stays so."""
        if record.run in self._live:
            return
        self._live[record.run] = record
        if record.timeout_s is not None:
            self._late[record.run] = asyncio.get_running_loop().time() + record.timeout_s + LATE_S
        self._settled[record.run] = asyncio.Event()
        self._work.set()

    @property
    def live(self) -> dict[str, RunRecord]:
        """The runs that go on, or have ended this moment."""
        return self._live

    def settled(self, run: str) -> asyncio.Event:
        """Return what is set once a run's outcome is in the audit."""
        found = self._settled.get(run)
        if found is None:
            found = asyncio.Event()
            found.set()
        return found

    async def ended(self, run: str) -> RunStatus:
        """Wait until a run's outcome is in the audit, and return it; LOST for one that nothing is known of."""
        if run not in self._live:
            return self.store.status(run) or LOST
        told: asyncio.Future[RunStatus] = asyncio.get_running_loop().create_future()
        self._told.setdefault(run, []).append(told)
        return await told

    async def attend(self) -> None:
        """Settle runs as they end, for ever. Without an audit, room or descriptors they wait for them."""
        while True:
            await self._work.wait()
            for record in list(self._live.values()):
                try:
                    status = self.store.status(record.run)
                    if status is not None:
                        await self._settle(record, status)
                    else:
                        self._wake(record.run)
                except (AuditUnavailable, OSError) as error:
                    say(f"the end of run {record.run} can't be seen to yet: {error}")
                    await asyncio.sleep(1.0)
            if not self._live:
                self._work.clear()
                continue
            await asyncio.sleep(LOOK_S)

    def _wake(self, run: str) -> None:
        now = asyncio.get_running_loop().time()
        if now > self._late.get(run, now):
            self._late[run] = now + LATE_S
            self.store.wake_runner(run)

    async def _settle(self, record: RunRecord, status: RunStatus) -> None:
        if status == LOST:
            await asyncio.to_thread(end_now, [(record.mark, 0)], GRACE_S)
        if record.run not in self._recorded:
            self._audit.append(self._outcome(record, status))
            self._recorded.add(record.run)  # however often it takes to note so
        await asyncio.to_thread(self.store.settle, record.run, status)
        self._recorded.discard(record.run)
        del self._live[record.run]
        self._late.pop(record.run, None)
        self._settled.pop(record.run).set()
        for told in self._told.pop(record.run, ()):
            if not told.done():
                told.set_result(status)
        try:
            self.store.prune(self.limits.keep_runs, self.limits.keep_runs_bytes, self.spared)
        except OSError as error:  # tried again when the next run ends
            say(f"old runs can't be removed: {error}")

    def _outcome(self, record: RunRecord, status: RunStatus) -> dict[str, Any]:
        ended = None if status.status is None or status.error else as_exit(status.status)
        outcome: dict[str, Any] = {
            "exit_code": None if ended is None else ended.exit_code,
            "signal": None if ended is None else ended.signal,
            "duration_s": status.duration_s,
            "stdout_bytes": status.stdout_bytes,
            "stderr_bytes": status.stderr_bytes,
            "digest": status.digest,
            "detached": True,
        }
        if status.error:
            outcome["error"] = status.error[0]
        return {
            "host": self._host,
            "listener": record.listener,
            "principal": record.principal,
            "layer": LAYER,
            "run": record.run,
            "outcome": outcome,
        }

    async def follow(self, run: str, offset: int) -> AsyncIterator[bytes]:
        """Yield whole frames of a run's log from a frame's beginning, until the run has ended and is in the audit."""
        fd = os.open(self.store.path(run) / "log", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while True:
                over = self.settled(run).is_set()
                while data := os.pread(fd, FOLLOW_BLOCK, offset):
                    whole = _whole(data)
                    if not whole:
                        break
                    yield data[:whole]
                    offset += whole
                if over:
                    return
                await asyncio.sleep(LOOK_S / 2)
        finally:
            os.close(fd)


def _whole(data: bytes) -> int:
    try:
        return whole_frames(data)
    except ValueError as error:
        raise ProtocolError("the run's log is damaged", hint="was it written by another version?") from error


def end_of(run: str, status: RunStatus) -> Result | OpsError:
    """Return a run's end as its caller is told: a result, or the error it ended in."""
    if status.error:
        return _error(status.error[0], status.error[1], status.error[2:])
    assert status.status is not None
    ended = as_exit(status.status)
    return Result(
        run=run,
        exit_code=ended.exit_code,
        signal=ended.signal,
        duration_s=status.duration_s,
        stdout_bytes=status.stdout_bytes,
        stderr_bytes=status.stderr_bytes,
        digest=status.digest,
        changed=True,
    )


def _error(code: str, text: str, details: list[str]) -> OpsError:
    match code:
        case "timeout":
            return StepTimeout(text, hint="raise timeout_s")
        case "limit":
            return LimitExceeded(text, hint="raise max_run_log_bytes or max_output_bytes")
        case "ended":
            return StepFailed(text)
        case "lost":
            return HostUnsuitable(text, hint="was its runner killed, or the host started anew?")
        case _:
            return as_error(code, text, details)
