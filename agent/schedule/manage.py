"""What is asked about schedules: keep one, forget one, switch it, begin a turn now; and reading them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from agent import http_server as web
from agent.answer import Answer
from agent.asker import LAYER, Asker
from agent.refusal import reading
from agent.schedule.keeper import Entry
from agent.schedule.model import Schedule, when
from opsexec.capability import CapabilitySet, Requirement
from opsexec.errors import BadStep, CapabilityDenied, HostUnsuitable, LimitExceeded, OpsError, UsageError
from opsexec.handlers.context import Context, Outcome
from opsexec.steps.registry import encode_step, redact
from opsexec.steps.schedule import ScheduleAdd, ScheduleRemove, ScheduleRun, ScheduleSwitch, schedule_name
from opsexec.wire import Result, pack_grants

if TYPE_CHECKING:
    from agent.desk import Desk
    from opsexec.steps.base import Step

MAX_OF_ONE = 100
"""Schedules of one principal."""

MAX_OFTEN = 10
"""Of them, those that may be due more than once a minute: each turn is written down several times."""

MAX_BYTES = 512 << 10
"""Bytes of one schedule, which is written down as a whole each time."""


async def manage(desk: Desk, asker: Asker, attenuation: CapabilitySet | None, step: Step, context: Context) -> Outcome:
    """Do one of the schedule steps, which the ceiling has admitted."""
    try:
        match step:
            case ScheduleAdd():
                return await _add(desk, asker, attenuation, step, context)
            case ScheduleRemove():
                return _remove(desk, step, context)
            case ScheduleSwitch():
                return _switch(desk, asker, step, context)
            case ScheduleRun():
                return _run(desk, asker, step, context)
            case _:
                raise BadStep(f"a {type(step).__name__} step is not about schedules")
    except OSError as error:
        text = f"the schedule can't be written down: {error.strerror}"
        raise HostUnsuitable(text, hint="make room in the agent's state_dir") from error


async def _add(
    desk: Desk, asker: Asker, attenuation: CapabilitySet | None, step: ScheduleAdd, context: Context
) -> Outcome:
    keeper = desk.schedules
    known = keeper.entries.get(step.name)
    if known is not None and _is_kept(known.schedule, step, asker.principal, attenuation):
        since = "enabled" if known.schedule.enabled else "disabled"
        more = "" if known.schedule.enabled == step.enabled else f", but {since} since"
        return Outcome(skipped=f"the schedule {step.name} is so already{more}")
    from agent.schedule.calendar import Calendar

    for inner in step.steps:
        context.capabilities.require_user(inner.run_as, host=desk.name, layer=LAYER)
    Calendar(step.cron, step.timezone)
    if step.runbook is not None:
        from agent.schedule.runbooks import read_beside

        await read_beside(step.runbook, desk.name)
    own = [each.schedule.asked for each in keeper.entries.values() if each.schedule.owner == asker.principal]
    if len(own) >= MAX_OF_ONE:
        raise LimitExceeded(f"{asker.principal} has {MAX_OF_ONE} schedules", hint="remove one")
    if _is_often(step) and sum(map(_is_often, own)) >= MAX_OFTEN:
        text = f"{asker.principal} has {MAX_OFTEN} schedules with seconds"
        raise LimitExceeded(text, hint="remove one, or let it be due at most once a minute")
    if len(encode_step(step)) > MAX_BYTES:
        raise LimitExceeded(f"the schedule is over {MAX_BYTES} bytes", hint="push what it needs, and let it read that")
    if context.check:
        keeper.require_free(step.name)
        return Outcome(changed=True, skipped="check mode")
    now = keeper.clock.now()
    schedule = Schedule(
        asked=step,
        uid=secrets.token_hex(8),
        owner=asker.principal,
        listener=asker.listener,
        created=now,
        enabled=step.enabled,
        attenuation=None if attenuation is None else pack_grants(attenuation),
        cursor=int(now),
    )
    keeper.add(schedule)
    return Outcome(changed=True, value=shown(desk, keeper.entries[step.name]))


def _is_kept(kept: Schedule, asked: ScheduleAdd, owner: str, attenuation: CapabilitySet | None) -> bool:
    """True when this is what is kept already, under just what its maker narrowed itself to."""
    return (kept.asked, kept.owner, kept.narrowed()) == (asked, owner, attenuation)


def _is_often(asked: ScheduleAdd) -> bool:
    return len(asked.cron.split()) == 6


def _remove(desk: Desk, step: ScheduleRemove, context: Context) -> Outcome:
    keeper = desk.schedules
    if step.name not in keeper.entries:
        file = keeper.store.path(step.name)
        if not keeper.store.is_taken(step.name):
            return Outcome(skipped=f"there is no schedule {step.name}")
        raise UsageError(f"{file.name} can't be read as a schedule", hint=f"look at {file}, then remove it by hand")
    if not context.check:
        keeper.remove(step.name)
    return Outcome(changed=True)


def _switch(desk: Desk, asker: Asker, step: ScheduleSwitch, context: Context) -> Outcome:
    entry = _entry(desk, step.name)
    if step.enabled:
        _require_owner(desk, asker, entry, "enables")
    if entry.schedule.enabled == step.enabled:
        return Outcome(skipped=f"the schedule {step.name} is so already")
    if not context.check:
        desk.schedules.switch(entry, step.enabled)
    return Outcome(changed=True, value=shown(desk, entry))


def _run(desk: Desk, asker: Asker, step: ScheduleRun, context: Context) -> Outcome:
    entry = _entry(desk, step.name)
    _require_owner(desk, asker, entry, "runs")
    if context.check:
        desk.schedules.require_idle(entry)
        return Outcome(changed=True, skipped="check mode: nothing is begun")
    return Outcome(changed=True, value={"run": desk.schedules.run_now(entry, asker.principal)})


def _entry(desk: Desk, name: str) -> Entry:
    entry = desk.schedules.entries.get(name)
    if entry is None:
        raise UsageError(f"there is no schedule {name}", hint="`opsexec schedule list HOST` shows those there are")
    return entry


def _require_owner(desk: Desk, asker: Asker, entry: Entry, what: str) -> None:
    """Raise CapabilityDenied for another's schedule: its steps run with its owner's rights."""
    if entry.schedule.owner != asker.principal:
        reason = f"and only its owner {what} it"
        need = f"schedule.manage:{entry.schedule.name}"
        raise CapabilityDenied(need, [need], host=desk.name, layer=LAYER, reason=reason)


def shown(desk: Desk, entry: Entry) -> dict[str, Any]:
    """Return a schedule as it is shown: plain JSON data, without bodies."""
    schedule, asked = entry.schedule, entry.schedule.asked
    due = entry.next_due()
    last = schedule.last
    return {
        **redact(asked),
        "owner": schedule.owner,
        "timezone": asked.timezone,
        "overlap": asked.overlap,
        "missed": asked.missed,
        "created": when(schedule.created),
        "enabled": schedule.enabled,
        "next": None if due is None else when(due + entry.offset),
        "running": schedule.turns[0].run if schedule.turns else None,
        "waiting": len(schedule.turns[1:]),
        "last": None
        if last is None
        else {"run": last.run, "due": when(last.due), "state": last.state, "detail": last.detail, "at": when(last.at)},
    }


async def list_schedules(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Answer with the caller's own schedules, and those that schedule.manage lets it manage."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        desk.allow(asker, {"type": "schedules.list"}, "own schedules, and those that schedule.manage admits")
        entries = [each for each in desk.schedules.entries.values() if _may_see(asker, each)]
        value: dict[str, Any] = {"schedules": [shown(desk, each) for each in entries]}
        if any(held.admits(Requirement("schedule.manage", "any")) for held in asker.grants):
            value["unreadable"] = desk.schedules.unreadable
        return await answer.result(Result(run="schedules", exit_code=0, value=value))
    except OpsError as error:
        return await answer.error(error)


async def show_schedule(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Answer with one schedule; one that isn't there is refused like another's."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        with reading(desk, asker, request):
            name = schedule_name(request.path.removeprefix("/v1/schedules/"))
        step = {"type": "schedules.show", "name": name}
        entry = desk.schedules.entries.get(name)
        granted = any(held.admits(Requirement("schedule.manage", name)) for held in asker.grants)
        if not granted and (entry is None or entry.schedule.owner != asker.principal):
            reason = "and it is no schedule of the caller's own"
            denied = CapabilityDenied(f"schedule.manage:{name}", (), layer=LAYER, reason=reason)
            desk.refuse(asker.listener, asker.principal, step, denied.message)
            raise denied
        desk.allow(asker, step, "granted" if granted else "the caller's own schedule")
        return await answer.result(Result(run="schedules", exit_code=0, value=shown(desk, _entry(desk, name))))
    except OpsError as error:
        return await answer.error(error)


def _may_see(asker: Asker, entry: Entry) -> bool:
    need = Requirement("schedule.manage", entry.schedule.name)
    return entry.schedule.owner == asker.principal or any(held.admits(need) for held in asker.grants)
