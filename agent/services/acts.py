"""A change of a host as a list of acts: each a typed Step with its reason, printed as a plan or done and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from agent.services.secret_shapes import mask
from opsexec.errors import AuditUnavailable, HostUnreachable, OpsError, PrivilegeDenied
from opsexec.steps import (
    Exec,
    Inquire,
    LaunchdControl,
    Link,
    MakeDir,
    MoveFile,
    PodmanRemove,
    ReadFile,
    RemoveFile,
    ServiceControl,
    ServiceDefinition,
    SetMode,
    Step,
    Survey,
    WriteFile,
)  # fmt: skip

if TYPE_CHECKING:
    from opsexec.executor import Executor, RunOutput

ENDING = (HostUnreachable, AuditUnavailable, PrivilegeDenied)
"""After these nothing else can be done on this host."""


Say = Callable[[str], None]
"""Who is told what happens, while it does."""


def unheard(text: str) -> None:
    """Tell nobody."""


class Act(NamedTuple):
    """One change. `id`: what records and plans call it."""

    id: str
    step: Step
    why: str = ""


class Done(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What became of an act. `rc`: 0 when it is as it should be; times as RFC 3339 and in ms; `file`, `sha256`,
    `redactions`: of the evidence it gave."""

    id: str
    argv: list[str]
    rc: int
    started_at: str
    duration_ms: int
    changed: bool = False
    error: str | None = None
    file: str | None = None
    sha256: str | None = None
    redactions: dict[str, int] = {}


def words(step: Step) -> list[str]:
    """Return a step as the words of the command it stands for; what it writes is not among them."""
    match step:
        case WriteFile():
            return ["write", step.path, step.mode or "-"]
        case MakeDir():
            return ["mkdir", "-p", "-m", step.mode or "0755", step.path]
        case RemoveFile():
            return ["rm", *(["-r"] if step.recursive else []), step.path]
        case MoveFile():
            return ["mv", "--no-clobber", step.path, step.to]
        case Link():
            return ["ln", "-s", step.target, step.path]
        case SetMode():
            return ["chmod", step.mode or "-", step.path]
        case ServiceControl():
            return ["systemctl", *(["--user"] if step.user else []), step.action, step.name]
        case ServiceDefinition(action="reload"):
            return ["systemctl", *(["--user"] if step.user else []), "daemon-reload"]
        case ServiceDefinition():
            kill = ["--signal=SIGKILL"] if step.action == "kill" else []
            return ["systemctl", *(["--user"] if step.user else []), step.action, *kill, step.name]
        case LaunchdControl():
            return launchctl_words(step)
        case PodmanRemove():
            return ["podman", "rm", "-f", "-t", "0", step.name]
        case Inquire():
            return list(step.argv())
        case Exec():
            return [str(word) for word in step.argv]
        case ReadFile() | Survey():
            return ["read", step.path]
        case _:
            return [type(step).__name__]


def launchctl_words(step: LaunchdControl) -> list[str]:
    """Return the launchctl command that a step stands for."""
    match step.action:
        case "bootstrap":
            return ["launchctl", "bootstrap", step.domain, step.path or ""]
        case "restart":
            return ["launchctl", "kickstart", "-k", step.target]
        case "kill":
            return ["launchctl", "kill", "SIGKILL", step.target]
        case _:
            return ["launchctl", step.action, step.target]


def now() -> str:
    """Return the time as a record has it, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def do(executor: Executor, act: Act) -> Done:
    """Do one act; an error is in its record, except those that end everything (ENDING)."""
    started, begun = now(), time.monotonic()
    error, changed = None, False
    try:
        output = await executor.run(act.step)
        changed = output.changed
    except ENDING:
        raise
    except OpsError as failure:
        error = mask(failure.message)  # what a program said last may hold what its definition does
    return Done(
        id=act.id,
        argv=words(act.step),
        rc=0 if error is None else 1,
        started_at=started,
        duration_ms=round((time.monotonic() - begun) * 1000),
        changed=changed,
        error=error,
    )


async def do_all(executor: Executor, acts: Sequence[Act], *, go_on: bool = False) -> list[Done]:
    """Do acts in order; the first that fails is the last, unless `go_on`."""
    done = []
    for act in acts:
        done.append(await do(executor, act))
        if done[-1].rc != 0 and not go_on:
            break
    return done


class ActingAs:
    """An executor each of whose steps is done as another user: what `--as` means for commands that change a host."""

    def __init__(self, executor: Executor, user: str) -> None:
        self._executor = executor
        self._user = user

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    async def run(self, step: Step, *words: Any, **options: Any) -> RunOutput:
        """As the executor's own."""
        return await self._executor.run(self._as_user(step), *words, **options)

    async def run_streaming(self, step: Step, *words: Any, **options: Any) -> RunOutput:
        """As the executor's own."""
        return await self._executor.run_streaming(self._as_user(step), *words, **options)

    def _as_user(self, step: Step) -> Step:
        return step if step.run_as is not None else msgspec.structs.replace(step, run_as=self._user)
