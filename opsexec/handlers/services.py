"""Service steps: read the unit's state, decide, and ask for a change only where one is needed."""

from __future__ import annotations

from typing import Any

from opsexec.errors import BadStep, StepFailed
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.limits import within
from opsexec.handlers.systemctl import Systemctl
from opsexec.steps.base import Step
from opsexec.steps.definitions import ServiceDefinition
from opsexec.steps.services import ServiceControl, ServiceStatus

ALREADY: dict[str, tuple[str, frozenset[str]]] = {
    "start": ("active_state", frozenset({"active", "reloading"})),
    "stop": ("active_state", frozenset({"inactive", "failed"})),
    "enable": (
        "unit_file_state",
        frozenset({"enabled", "static", "alias", "indirect", "generated", "transient"}),
    ),
    "disable": (
        "unit_file_state",
        frozenset({"disabled", "masked", "masked-runtime", "static", "generated", "transient", ""}),
    ),
}
"""Action -> the property to look at and its values that need nothing more, as in systemctl(1).

restart and reload have no row: they always do something. `enabled-runtime` isn't enabled: a reboot ends it.
"""


async def handle(step: Step, context: Context) -> Outcome:
    """Read a service's state, or bring it into one."""
    if isinstance(step, ServiceStatus):
        return await within(f"reading service {step.name}", _status(step, context), context)
    if isinstance(step, ServiceControl):
        return await within(f"{step.action} of service {step.name}", _control(step, context), context)
    if isinstance(step, ServiceDefinition):
        return await within(f"{step.action} of service {step.name}", _define(step, context), context)
    raise BadStep(f"{type(step).__name__} is no service step")


async def _status(step: ServiceStatus, context: Context) -> Outcome:
    return Outcome(value=await Systemctl(context, step.run_as, user=step.user).show(step.name))


async def _control(step: ServiceControl, context: Context) -> Outcome:
    systemctl = Systemctl(context, step.run_as, user=step.user)
    before = await systemctl.show(step.name)
    if already_so(step.action, before):
        return Outcome(value=before)
    _refuse(step, before, context)
    if context.check:
        return Outcome(changed=True, value=before, diff=f"{step.action} {step.name}\n" if context.diff else None)
    done = await systemctl.run(step.action, "--", step.name)
    if done.ok or not await _did(systemctl, step.action, step.name):
        systemctl.require_ok(done, f"{step.action} service {step.name}")
    after = await systemctl.show(step.name)
    return Outcome(changed=True, value=after, diff=_diff(step, before, after) if context.diff else None)


async def _define(step: ServiceDefinition, context: Context) -> Outcome:
    systemctl = Systemctl(context, step.run_as, user=step.user)
    before = await systemctl.show(step.name)
    if _settled(step.action, before):
        return Outcome(value=before)
    if context.check:
        return Outcome(changed=True, value=before, diff=f"{step.action} {step.name}\n" if context.diff else None)
    words = {
        "reload": ("daemon-reload",),
        "kill": ("kill", "--signal=SIGKILL", "--", step.name),
    }.get(step.action, (step.action, "--", step.name))
    done = await systemctl.run(*words)
    if done.ok or not await _did(systemctl, step.action, step.name):
        systemctl.require_ok(done, f"{step.action} service {step.name}")
    return Outcome(changed=True, value=await systemctl.show(step.name))


async def _did(systemctl: Systemctl, action: str, name: str) -> bool:
    """Return whether a failed disable or unmask is done on disk all the same.

    systemd 252 does it, and then complains of another unit's definition, such as a link to itself, before it has told
    the manager: so what is asked is what stands on disk, not what the manager remembers.
    """
    if action not in ("disable", "unmask"):
        return False
    state = (await systemctl.run("is-enabled", "--", name)).text.strip()
    return state == "disabled" if action == "disable" else not state.startswith("masked")


def _settled(action: str, state: dict[str, Any]) -> bool:
    """True when nothing is left to do. reload and kill always do something: what changed can't be seen from here."""
    masked = "masked" in (state["unit_file_state"], state["load_state"])
    settled: dict[str, bool] = {
        "mask": state["unit_file_state"] == "masked" and state["load_state"] == "masked",
        "unmask": not masked,
        "reset-failed": state["active_state"] != "failed" and not state["restarts"],
    }
    return settled.get(action, False)


def already_so(action: str, state: dict[str, Any]) -> bool:
    """True when a service in this state needs nothing for the action."""
    if action not in ALREADY:
        return False
    name, values = ALREADY[action]
    return state[name] in values


def _refuse(step: ServiceControl, state: dict[str, Any], context: Context) -> None:
    """Raise StepFailed for what systemctl would refuse, so that check mode predicts it too."""
    host = context.host.name
    if state["load_state"] == "not-found":
        raise StepFailed(f"there is no service {step.name}", host=host, hint="install its unit, or check the name")
    if state["load_state"] == "masked" and step.action in ("start", "restart", "enable"):
        raise StepFailed(f"service {step.name} is masked", host=host, hint="unmask it first")
    if step.action == "reload" and state["active_state"] != "active":
        hint = "start it first, or use restart"
        raise StepFailed(f"service {step.name} is {state['active_state']}, so it can't reload", host=host, hint=hint)


def _diff(step: ServiceControl, before: dict[str, Any], after: dict[str, Any]) -> str:
    names = ("active_state", "unit_file_state", "main_pid")
    lines = [f"{name} {before[name]} -> {after[name]}\n" for name in names if before[name] != after[name]]
    return "".join(lines) or f"{step.action} {step.name}\n"
