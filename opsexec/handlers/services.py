"""Service steps through systemctl: read the unit's state, decide, and start a change only where one is needed."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from opsexec.capability import program_candidates
from opsexec.errors import BadStep, HostUnsuitable, StepFailed
from opsexec.executor import RunOutput
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.deadline import within
from opsexec.hosts.port import ProcessExit, ProcessSpec
from opsexec.recorder import Recorder
from opsexec.steps.base import Step
from opsexec.steps.services import ServiceControl, ServiceStatus

PROPERTIES = (
    "Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "MainPID", "NRestarts",
    "ExecMainStatus", "FragmentPath", "Description",
)  # fmt: skip
"""What is asked of systemctl show; systemd's D-Bus interface, org.freedesktop.systemd1(5), explains each."""

NUMBERS = frozenset({"MainPID", "NRestarts", "ExecMainStatus"})
NAMES = {"MainPID": "main_pid", "NRestarts": "restarts", "ExecMainStatus": "exit_status"}

UP = frozenset({"active", "activating", "reloading"})
DOWN = frozenset({"inactive", "failed"})
ENABLED = frozenset({"enabled", "enabled-runtime", "static", "alias", "indirect", "generated", "transient"})
"""Unit file states in which `enable` has nothing left to do, from systemctl(1) is-enabled."""

DISABLED = frozenset({"disabled", "masked", "masked-runtime", "static", "indirect", "generated", "transient", ""})


async def handle(step: Step, context: Context) -> Outcome:
    """Read a service's state, or bring it into one."""
    if isinstance(step, ServiceStatus):
        return Outcome(value=await read_state(step, context))
    if isinstance(step, ServiceControl):
        return await _control(step, context)
    raise BadStep(f"{type(step).__name__} is no service step")


async def _control(step: ServiceControl, context: Context) -> Outcome:
    before = await read_state(step, context)
    if before["load_state"] == "not-found" and step.action not in ("stop", "disable"):
        hint = "install its unit first, or check the name"
        raise StepFailed(f"there is no service {step.name}", host=context.host.name, hint=hint)
    if before["load_state"] == "masked" and step.action not in ("stop", "disable"):
        raise StepFailed(f"service {step.name} is masked", host=context.host.name, hint="unmask it first")
    if already_so(step.action, before):
        return Outcome(value=before)
    if context.check:
        return Outcome(changed=True, value=before, diff=_diff(context, step, before, None))
    ended, recorder = await _systemctl(step, context, [step.action])
    if ended.exit_code != 0:
        raise _failed(step, context, ended, recorder)
    after = await read_state(step, context)
    return Outcome(changed=True, value=after, diff=_diff(context, step, before, after))


def already_so(action: str, state: dict[str, Any]) -> bool:
    """True when a service in this state needs nothing for the action; restart and reload always do something."""
    active, file = state["active_state"], state["unit_file_state"]
    match action:
        case "start":
            return active in UP
        case "stop":
            return active in DOWN
        case "enable":
            return file in ENABLED
        case "disable":
            return file in DISABLED
        case _:
            return False


def _diff(
    context: Context, step: ServiceControl, before: dict[str, Any], after: dict[str, Any] | None
) -> str | None:
    """Say which part of the state changed; in check mode, what would be done."""
    if not context.diff:
        return None
    if after is None:
        return f"{step.action} {step.name} ({before['active_state']}, {before['unit_file_state'] or 'no unit file'})\n"
    names = ("active_state", "unit_file_state", "main_pid")
    lines = [f"{n} {before[n]} -> {after[n]}\n" for n in names if before[n] != after[n]]
    return "".join(lines) or f"{step.action} {step.name}\n"


async def read_state(step: ServiceStatus | ServiceControl, context: Context) -> dict[str, Any]:
    """Return a unit's state as JSON data: `load_state`, `active_state`, `main_pid` and so on."""
    ended, recorder = await _systemctl(step, context, ["show", "--property=" + ",".join(PROPERTIES)])
    if ended.exit_code != 0:
        raise _failed(step, context, ended, recorder)
    return parse_show(recorder.tail(0).decode("utf-8", "replace"), step.name)


def parse_show(text: str, name: str) -> dict[str, Any]:
    """Return the properties that `systemctl show` printed, under snake-case names; absent ones are empty."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    state: dict[str, Any] = {"name": name}
    for prop in PROPERTIES:
        value = found.get(prop, "")
        if prop in NUMBERS:
            state[NAMES[prop]] = int(value) if value.isdigit() else None
        else:
            state[_snake(prop)] = value
    state["load_state"] = state["load_state"] or "not-found"
    return state


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


async def _systemctl(
    step: ServiceStatus | ServiceControl, context: Context, words: list[str]
) -> tuple[ProcessExit, Recorder]:
    """Run systemctl on the step's unit. The grant is service.*, so the program itself needs no exec grant."""
    programs = program_candidates("systemctl")
    scope = ["--user"] if step.user else []
    argv = ("systemctl", *scope, "--no-ask-password", "--no-pager", *words, "--", step.name)
    spec = ProcessSpec(
        run=secrets.token_hex(8),
        programs=programs,
        admitted=programs,
        argv=argv,
        env={"SYSTEMD_COLORS": "0", "LC_ALL": "C"},
        run_as=step.run_as,
        timeout_s=context.timeout_s,
    )
    recorder = Recorder()
    try:
        ended = await within(f"systemctl {words[0]}", context.host.run_process(spec, recorder), context)
    except StepFailed as error:
        if error.output is None and error.hint and error.hint.startswith("install it"):
            raise HostUnsuitable(
                "the host has no systemctl", host=context.host.name, hint="services need systemd; use Exec here"
            ) from error
        raise
    return ended, recorder


NO_MANAGER = ("not been booted with systemd", "Failed to connect to bus", "Failed to connect to system scope bus")
"""What systemctl says, in the C locale, where no service manager answers (systemd 239 to 256)."""


def _failed(
    step: ServiceStatus | ServiceControl, context: Context, ended: ProcessExit, recorder: Recorder
) -> StepFailed | HostUnsuitable:
    """Return the error of a systemctl that failed, with what it said."""
    said = recorder.tail(1).decode("utf-8", "replace").strip()
    last = said.rpartition("\n")[2][:200]
    host = context.host.name
    if any(text in said for text in NO_MANAGER):
        hint = "log in with a lingering user session" if step.user else "services need systemd as PID 1"
        return HostUnsuitable(f"no service manager answers systemctl: {last}", host=host, hint=hint)
    doing = step.action if isinstance(step, ServiceControl) else "read"
    how = ended.signal or f"exit status {ended.exit_code}"
    output = RunOutput(
        run=context.run,
        host=host,
        exit_code=ended.exit_code,
        signal=ended.signal,
        stdout=recorder.tail(0),
        stderr=recorder.tail(1),
        stdout_bytes=recorder.counts[0],
        stderr_bytes=recorder.counts[1],
        digest=recorder.digest,
    )
    hint = "`journalctl -u` on the host says why"
    if "access denied" in said.lower() or "authentication" in said.lower():
        hint = "use run_as root, or let this user manage units with polkit"
    return StepFailed(f"can't {doing} service {step.name}: {last or how}", output=output, host=host, hint=hint)


async def failed_services(context: Context, run_as: str | None) -> list[str] | None:
    """Return the names of failed units, as `systemctl list-units` has them; None where there is no systemd."""
    programs = program_candidates("systemctl")
    argv = ("systemctl", "--no-pager", "--plain", "--no-legend", "list-units", "--state=failed")
    spec = ProcessSpec(
        run=secrets.token_hex(8),
        programs=programs,
        admitted=programs,
        argv=argv,
        env={"SYSTEMD_COLORS": "0", "LC_ALL": "C"},
        run_as=run_as,
        timeout_s=context.timeout_s,
    )
    recorder = Recorder()
    try:
        ended = await context.host.run_process(spec, recorder)
    except StepFailed:
        return None
    if ended.exit_code != 0:
        return None
    lines = recorder.tail(0).decode("utf-8", "replace").splitlines()
    return [line.split()[0] for line in lines if line.split()]


__all__ = ["already_so", "failed_services", "handle", "msgspec", "parse_show", "read_state"]
