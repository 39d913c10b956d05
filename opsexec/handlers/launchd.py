"""LaunchdControl: look what launchd knows of a job, decide, ask for a change where one is needed, and see it through.

launchctl answers before launchd is done. A bootout is over when `print` no longer finds the job; a bootstrap that comes
too soon after one is refused with 5 or 37 for some seconds, as people report it, so it is asked for again.
"""

from __future__ import annotations

import asyncio
import plistlib
from collections.abc import Callable
from typing import Any
from xml.parsers.expat import ExpatError

from opsexec.capability import clean_path
from opsexec.errors import BadStep, StepFailed, StepTimeout
from opsexec.far.message import pack_layers
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.far_answers import Contents, answered, decoded
from opsexec.handlers.launchctl import (
    IN_PROGRESS,
    IO_ERROR,
    NO_SUCH_PROCESS,
    NOT_FOUND,
    RUNNING,
    UNDER_WAY,
    Launchctl,
)
from opsexec.handlers.limits import call, within
from opsexec.steps.base import Step
from opsexec.steps.launchd import AGENTS, DAEMONS, LaunchdControl
from opsexec.steps.text import as_bytes

ODD_PLIST = (
    plistlib.InvalidFileException, ExpatError, ValueError, LookupError, OverflowError, RecursionError, TypeError,
    AttributeError,
)  # fmt: skip
"""What plistlib raises for bytes that are no property list."""
PLIST_LIMIT = 1 << 20
"""The largest property list that is bootstrapped, in bytes."""

SETTLE_S = 15.0
"""Seconds a bootstrap is tried again after a refusal that passes by itself; three to five were reported."""
END_S = 60.0
"""Seconds until a job that was booted out must be gone, where the step names no deadline."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0

ALREADY: dict[str, Callable[[dict[str, Any]], bool]] = {
    "bootstrap": lambda job: bool(job["loaded"]),
    "bootout": lambda job: not job["loaded"],
    "kickstart": lambda job: job["state"] == RUNNING,
    "enable": lambda job: job["disabled"] is False,
    "disable": lambda job: job["disabled"] is True,
    "kill": lambda job: job["state"] != RUNNING,
}
"""Action -> whether a job in this state needs nothing more. restart always does something."""


async def handle(step: Step, context: Context) -> Outcome:
    """Bring a job into a state; `value` is what launchd knows of it afterwards."""
    if not isinstance(step, LaunchdControl):
        raise BadStep(f"{type(step).__name__} is no step of launchd's")
    return await within(f"{step.action} of {step.target}", _control(step, context), context)


async def _control(step: LaunchdControl, context: Context) -> Outcome:
    launchctl = Launchctl(context, step.run_as)
    await _require_place(step, context)
    before = await launchctl.job(step.domain, step.label)
    _refuse(step, before, context)
    already = ALREADY.get(step.action)
    if already is not None and already(before):
        return Outcome(value=before)
    if step.path is not None:
        await _require_label(step, step.path, context)
    if context.check:
        return Outcome(changed=True, value=before, diff=f"{step.action} {step.target}\n" if context.diff else None)
    match step.action:
        case "bootstrap":
            await _bootstrap(step, launchctl)
        case "bootout":
            await _bootout(step, launchctl, context)
        case _:
            words = {"restart": ("kickstart", "-k"), "kill": ("kill", "SIGKILL")}.get(step.action, (step.action,))
            launchctl.require_ok(await launchctl.run(*words, step.target), f"{step.action} {step.target}")
    after = await launchctl.job(step.domain, step.label)
    return Outcome(changed=True, value=after, diff=_diff(step, before, after) if context.diff else None)


def _refuse(step: LaunchdControl, job: dict[str, Any], context: Context) -> None:
    """Raise StepFailed for what launchctl would refuse, so that check mode predicts it too."""
    host = context.host.name
    if step.action in ("kickstart", "restart") and not job["loaded"]:
        raise StepFailed(f"{step.target} isn't loaded", host=host, hint="bootstrap it first")
    if step.action != "bootstrap":
        return
    if job["loaded"] and job["path"] != clean_path(step.path or "/"):
        text = f"{step.target} is loaded already, from {job['path'] or 'no file'}"
        raise StepFailed(text, host=host, hint="boot it out first")
    if job["disabled"] and not job["loaded"]:
        raise StepFailed(f"{step.target} is disabled in launchd's database", host=host, hint="enable it first")


async def _require_place(step: LaunchdControl, context: Context) -> None:
    """Raise StepFailed for a login's property list that isn't below its own home: whoever writes elsewhere is another.

    The host knows the home of who does the step, and it counts when that is the domain's own user.
    """
    directory = clean_path(step.path or "/").rpartition("/")[0]
    if step.path is None or directory in (DAEMONS, AGENTS):
        return
    (facts,) = await call("facts", [b"user"], step.run_as, context, items=1)
    user = decoded(facts, context).get("user")
    uid, home = (user.get("uid"), user.get("home")) if isinstance(user, dict) else (None, None)
    own = step.domain.partition("/")[2] == str(uid) and isinstance(home, str) and home.startswith("/")
    if not own or directory != clean_path(f"{home}/Library/LaunchAgents"):
        text = f"{step.path[:120]!r} isn't in the LaunchAgents of {step.domain}'s own home"
        hint = f"put it there and do it as that user (run_as), or in {AGENTS}"
        raise StepFailed(text, host=context.host.name, hint=hint)


async def _require_label(step: LaunchdControl, path: str, context: Context) -> None:
    """Raise StepFailed unless the property list is of the label that was admitted: launchd goes by what it says."""
    grants = pack_layers(context.capabilities.path_layers("fs.read"))
    args = [as_bytes(clean_path(path)), grants, b"0", b"%d" % PLIST_LIMIT]
    data, meta = await call("read_file", args, step.run_as, context, items=2)
    place = clean_path(path)
    if answered(meta, Contents, context).path not in (place, f"/private{place}"):  # a mac's /var is a link to there
        raise StepFailed(f"{path} is a link, or stands behind one", host=context.host.name)
    try:
        keys = plistlib.loads(data)
    except ODD_PLIST as error:
        raise StepFailed(f"{path} is no property list", host=context.host.name) from error
    label = keys.get("Label") if isinstance(keys, dict) else None
    if label != step.label:
        text = f"{path} is of the job {str(label)[:80]!r}, not of {step.label}"
        raise StepFailed(text, host=context.host.name, hint="name the job as its property list does")


async def _bootstrap(step: LaunchdControl, launchctl: Launchctl) -> None:
    """Load it; a refusal that a bootout still under way explains is outlived."""
    words = ("bootstrap", step.domain, clean_path(step.path or "/"))
    pause, left = FIRST_PAUSE_S, SETTLE_S
    while True:
        output = await launchctl.run(*words)
        if output.exit_code not in (IO_ERROR, IN_PROGRESS, UNDER_WAY):
            break
        if (await launchctl.job(step.domain, step.label))["loaded"]:
            return
        if left <= 0:
            break
        await asyncio.sleep(pause)
        left, pause = left - pause, min(2 * pause, LONGEST_PAUSE_S)
    launchctl.require_ok(output, f"bootstrap {step.target}")


async def _bootout(step: LaunchdControl, launchctl: Launchctl, context: Context) -> None:
    """Unload it, and wait until launchd no longer knows it; raises StepTimeout where it doesn't end."""
    output = await launchctl.run("bootout", step.target)
    if output.exit_code not in (NO_SUCH_PROCESS, NOT_FOUND, IN_PROGRESS):
        launchctl.require_ok(output, f"bootout {step.target}")
    pause, left = FIRST_PAUSE_S, END_S
    while (await launchctl.job(step.domain, step.label))["loaded"]:
        if left <= 0:
            raise StepTimeout(f"{step.target} was booted out, and is there after {END_S:g} s", host=context.host.name)
        await asyncio.sleep(pause)
        left, pause = left - pause, min(2 * pause, LONGEST_PAUSE_S)


def _diff(step: LaunchdControl, before: dict[str, Any], after: dict[str, Any]) -> str:
    names = ("loaded", "state", "pid", "disabled")
    lines = [f"{name} {before[name]} -> {after[name]}\n" for name in names if before[name] != after[name]]
    return "".join(lines) or f"{step.action} {step.target}\n"
