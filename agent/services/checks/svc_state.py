"""svc.*: what the manager says of the service now."""

from __future__ import annotations

import asyncio
import json
import re
import time

import msgspec

from agent.services import launchd_state
from agent.services.check import check
from agent.services.finding import EXCERPT, Evidence, Fix, Ruling, failed, noted, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.manager_journal import last_bad_end
from agent.services.probe import Unreadable
from agent.services.restart_rate import HOUR_S, Rate, by_journal, over_last_start, since_last_start
from agent.services.unit_state import ask_unit, installed, loaded, parse_properties, unit_state

DEFAULT_PER_HOUR = 3


def control(look: Look, *words: str) -> tuple[str, ...]:
    """Return a systemctl command for the service's own manager."""
    return ("systemctl", *(("--user",) if look.user else ()), *words, look.service.unit)


@check(
    "svc.state", "service", reads="`systemctl show UNIT`, `launchctl print`", fails_when="the unit has failed",
    severity="high", after=("backend.manager",),
)  # fmt: skip
async def state(look: Look) -> Ruling:
    """Rule on LoadState and ActiveState."""
    if await look.system() == "Darwin":
        return await launchd_state.judge_state(look)
    said = await ask_unit(look)
    found = await unit_state(look)
    unit, active, load = look.service.unit, found["ActiveState"], found["LoadState"]
    if load == "not-found":
        if look.declared is None:
            return failed(f"there is no {unit} on this host, and no declaration of it", said.evidence)
        return noted(f"{unit} is declared and not installed", said.evidence)
    if load in ("error", "bad-setting"):
        return failed(f"{unit} can't be loaded: {found.get('LoadError', '') or load}", said.evidence)
    if active == "failed":
        fix = Fix(text="read why", argv=("journalctl", "-u", unit), safe=True, shows=True)
        return failed(f"{unit} has failed ({found.get('Result', '')})", said.evidence, fix=fix)
    if active not in ("active", "reloading", "inactive", "activating", "deactivating"):
        return unknown(f"{unit} is in a state nobody knows: {active[:60]}", said.evidence)
    if load == "masked":
        return noted(f"{unit} is masked, {active}", said.evidence)
    return passed(f"{unit} is {active} ({found.get('SubState', '')})", said.evidence)


def last_lines(journal: str) -> list[str]:
    """Return the messages of `journalctl -o json` lines; what is no such line is left out."""
    found = []
    for line in journal.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        message = entry.get("MESSAGE") if isinstance(entry, dict) else None
        if isinstance(message, list):  # journald writes bytes that aren't text as a list of numbers
            message = bytes(each for each in message if isinstance(each, int) and 0 <= each < 256).decode(
                "utf-8", "replace"
            )
        if isinstance(message, str):
            found.append(message)
    return found


async def journal_of(look: Look) -> Evidence | None:
    """Return the unit's last words; None where there is no journal to read."""
    try:
        said = await look.probe.ask("systemd.journal-user" if look.user else "systemd.journal", look.service.unit)
    except Unreadable:
        return None
    lines = last_lines(said.out) if said.rc == 0 else []
    return Evidence(cmd=said.cmd, rc=said.rc, excerpt="\n".join(lines[-8:])[-EXCERPT:]) if lines else None


@check(
    "svc.last-exit", "service", reads="ExecMainCode, ExecMainStatus, Result, the journal; `launchctl print`",
    fails_when="the main process ended with another status than 0", after=("backend.manager",),
)  # fmt: skip
async def last_exit(look: Look) -> Ruling:
    """Rule on how the main process ended last."""
    if await look.system() == "Darwin":
        return await launchd_state.judge_exit(look)
    found = await installed(look)
    code, status = found.get("ExecMainCode", ""), found.get("ExecMainStatus", "")
    result = found.get("Result", "")
    if not code.isdigit() or not status.isdigit():
        return skipped("the unit has no main process")
    if code == "0" or ((code == "1" and status == "0") and result in ("success", "")):
        return await _end_before(look, found)
    said = await ask_unit(look)
    how = f"status {status}" if code == "1" else f"signal {status}"
    journal = await journal_of(look)
    evidence = (said.evidence, *((journal,) if journal else ()))
    return warned(f"the main process ended with {how} ({result})", *evidence)


async def _end_before(look: Look, found: dict[str, str]) -> Ruling:
    """Rule on a unit whose process runs: systemd forgets the one before as it restarts, and the journal doesn't.

    Raises Unreadable.
    """
    if found.get("NRestarts", "0") in ("0", ""):
        return passed("no bad end is on record")
    said = await look.probe.ask("systemd.journal-user" if look.user else "systemd.journal", look.service.unit)
    if said.rc != 0:
        return unknown("it was restarted, and its journal doesn't say how it ended before", said.evidence)
    how = last_bad_end(said.out)
    if how is None:
        return passed("no bad end is on record")
    evidence = Evidence(cmd=said.cmd, rc=said.rc, excerpt="\n".join(last_lines(said.out)[-8:])[-EXCERPT:])
    return warned(f"the main process ended with {how} before it was restarted", evidence)


def judge_restarts(state: str, count: int, limit: int, rate: Rate | None) -> Ruling:
    """Rule on the manager's count and its rate; None for one that nobody can tell."""
    text = f"{count} automatic restarts" if count else "no automatic restart"
    if count and rate is not None:
        text += f", {rate.per_hour:.0f} an hour {rate.basis}"
    if count > limit and rate is not None and rate.per_hour > limit and state not in ("failed", "dead"):
        return failed(f"a runaway: {text}, at most {limit} an hour are allowed")
    if state == "auto-restart":
        return failed(f"it is between two restarts now: {text}")
    if count > limit:
        return warned(f"{text}, more than the {limit} that one hour may have")
    return noted(text) if count else passed(text)


async def slow_rate(look: Look, found: dict[str, str], count: int) -> Rate | None:
    """Return the rate of a count that stood still while we looked; None when nobody can tell."""
    try:
        question = "systemd.journal-user" if look.user else "systemd.journal"
        said = await look.probe.ask(question, look.service.unit)
        told = by_journal(said.out, await look.probe.moment()) if said.rc == 0 else None
    except Unreadable:
        told = None  # without a grant on the journal the manager's own numbers have to do
    if told is not None:
        return told
    try:
        uptime = (await look.probe.facts("kernel")).get("uptime_s")
    except Unreadable:
        return None
    age = since_last_start(found, uptime) if isinstance(uptime, float) else None
    return None if age is None else over_last_start(count, age)


WATCH_S = 1.5
"""Seconds between two looks at a count that is too high already."""


@check(
    "svc.restart-count", "service",
    reads="NRestarts (twice where it is high), SubState, ActiveEnterTimestamp, the journal; runs of `launchctl print`",
    fails_when="it restarts more often an hour than declared, or waits for its next restart", severity="high",
    after=("backend.manager",),
)  # fmt: skip
async def restart_count(look: Look) -> Ruling:
    """Rule on how often the manager has restarted it, and does now."""
    limit = look.declared.lifecycle.max_restarts_per_hour if look.declared else DEFAULT_PER_HOUR
    if await look.system() == "Darwin":
        return await launchd_state.judge_restarts(look, limit)
    found = await installed(look)
    count = restarts(found)
    if count is None:
        return skipped("the manager doesn't count restarts of this unit")
    said = await ask_unit(look)
    rate: Rate | None = None
    if count > limit:
        begun = time.monotonic()
        await asyncio.sleep(WATCH_S)
        said = await ask_unit(look, again=1)
        later = restarts(parse_properties(said.out))
        if later is None:
            raise Unreadable("the manager stopped counting restarts", said.evidence)
        # The count begins anew with a start by hand.
        rate = Rate(max(0, later - count) * HOUR_S / (time.monotonic() - begun), "now")
        if later <= count:
            rate = await slow_rate(look, found, count)
        count = max(later, count)
    ruling = judge_restarts(found.get("SubState", ""), count, limit, rate)
    if ruling.verdict in ("fail", "warn"):
        fix = Fix(text="stop it, then look why it ends", argv=control(look, "stop"))
        return msgspec.structs.replace(ruling, evidence=(said.evidence,), fix=fix)
    return ruling


def restarts(found: dict[str, str]) -> int | None:
    """Return NRestarts; None when the manager doesn't say."""
    text = found.get("NRestarts", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


@check(
    "svc.disabled-override", "service", reads="UnitFileState, LoadState; `launchctl print-disabled`",
    fails_when="it is declared enabled, and masked or disabled on the host",
    after=("backend.manager",),
)  # fmt: skip
async def disabled_override(look: Look) -> Ruling:
    """Compare what is declared with what is enabled."""
    if await look.system() == "Darwin":
        return await launchd_state.judge_disabled(look)
    found = await installed(look)
    said = await ask_unit(look)
    state = found.get("UnitFileState", "")
    if look.declared is None:
        return skipped("nothing is declared of it")
    if not loaded(found) and found["LoadState"] != "masked":
        return skipped("it is not installed")
    if look.declared.enable and (state.startswith("masked") or state == "disabled" or found["LoadState"] == "masked"):
        state = state or "masked"
        words = control(look, "unmask") if "masked" in state else control(look, "enable")
        return failed(
            f"declared enabled, and {state} on the host", said.evidence, fix=Fix(text="bring it in line", argv=words)
        )
    if not look.declared.enable and state == "enabled":
        fix = Fix(text="bring it in line", argv=control(look, "disable"))
        return failed("declared not enabled, and enabled on the host", said.evidence, fix=fix)
    return passed(f"as declared ({state or found['LoadState']})")


@check(
    "svc.stale", "service", reads="LoadState, ActiveState, NeedDaemonReload",
    fails_when="it runs from a definition that is gone, or was changed since it was loaded", platforms=("Linux",),
    after=("backend.manager",),
)  # fmt: skip
async def stale(look: Look) -> Ruling:
    """Rule on whether the manager has the definition that is on disk."""
    found = await installed(look)
    said = await ask_unit(look)
    if found["LoadState"] == "not-found" and found["ActiveState"] not in ("inactive", "failed"):
        fix = Fix(text="stop what still runs", argv=control(look, "stop"))
        return failed("it runs, and its definition is gone", said.evidence, fix=fix)
    if found.get("NeedDaemonReload") == "yes":
        words = ("systemctl", *(("--user",) if look.user else ()), "daemon-reload")
        return failed(
            "its definition was changed since it was loaded",
            said.evidence,
            fix=Fix(text="load it", argv=words, safe=True),
        )
    return passed("the loaded definition is the one on disk")


@check(
    "svc.bootstrap-error", "service", reads="Result, LoadError, ConditionResult",
    fails_when="the last start failed before its program ran", platforms=("Linux",), after=("backend.manager",),
)  # fmt: skip
async def bootstrap_error(look: Look) -> Ruling:
    """Rule on the manager's own reasons for not starting it."""
    found = await installed(look)
    said = await ask_unit(look)
    result = found.get("Result", "")
    if result in ("start-limit-hit", "resources", "protocol", "timeout", "exec-condition"):
        text = f"the last start ended with {result}"
        return (noted if result == "exec-condition" else failed)(text, said.evidence)
    if found.get("ConditionResult") == "no" and found["ActiveState"] == "inactive" and found.get("ExecMainCode") == "0":
        return noted("a condition of the unit was not met, or it was never started", said.evidence)
    return passed("no start has failed in the manager")
