"""svc.*: what the manager says of the service now."""

from __future__ import annotations

import json
import re

from agent.services.check import check
from agent.services.finding import EXCERPT, Evidence, Fix, Ruling, failed, noted, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Unreadable
from agent.services.unit_state import ask_unit, loaded, unit_state

DEFAULT_PER_HOUR = 3


def control(look: Look, *words: str) -> tuple[str, ...]:
    """Return a systemctl command for the service's own manager."""
    return ("systemctl", *(("--user",) if look.user else ()), *words, look.service.unit)


@check(
    "svc.state", "service", reads="`systemctl show UNIT`, `launchctl print`", fails_when="the unit has failed",
    severity="high", platforms=("Linux",), after=("backend.manager",),
)  # fmt: skip
async def state(look: Look) -> Ruling:
    """Rule on LoadState and ActiveState."""
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
        fix = Fix(text="read why", argv=("journalctl", "-u", unit), safe=True)
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
    "svc.last-exit", "service", reads="ExecMainCode, ExecMainStatus, Result; the journal's last lines",
    fails_when="the main process ended with another status than 0", platforms=("Linux",), after=("svc.state",),
)  # fmt: skip
async def last_exit(look: Look) -> Ruling:
    """Rule on how the main process ended last."""
    found = await unit_state(look)
    code, status = found.get("ExecMainCode", ""), found.get("ExecMainStatus", "")
    result = found.get("Result", "")
    if not code.isdigit() or not status.isdigit():
        return skipped("the unit has no main process")
    if code == "0" or ((code == "1" and status == "0") and result in ("success", "")):
        return passed("no bad end is on record")
    said = await ask_unit(look)
    how = f"status {status}" if code == "1" else f"signal {status}"
    journal = await journal_of(look)
    evidence = (said.evidence, *((journal,) if journal else ()))
    return warned(f"the main process ended with {how} ({result})", *evidence)


def judge_restarts(found: dict[str, str], limit: int, uptime_s: float | None, since_s: float | None) -> tuple[str, str]:
    """Return a verdict and a sentence from NRestarts. `since_s`: how long the manager has been counting, in seconds."""
    count = int(found["NRestarts"])
    window = max(since_s or uptime_s or 3600.0, 1.0)
    per_hour = count * 3600 / max(window, 3600.0)
    text = f"{count} automatic restarts, {count * 3600 / window:.0f} an hour" if count else "no automatic restart"
    if found.get("SubState") == "auto-restart":
        return "fail", f"it is between two restarts now: {text}"
    if count > limit and per_hour > limit:
        return "fail", f"a runaway: {text} (at most {limit} an hour)"
    if count > limit:
        return "warn", f"{text}, more than the {limit} that one hour may have"
    return "pass" if not count else "info", text


@check(
    "svc.restart-count", "service", reads="NRestarts, SubState, InactiveExitTimestampMonotonic, uptime",
    fails_when="it restarts more often an hour than declared, or waits for its next restart", severity="high",
    platforms=("Linux",), after=("svc.state",),
)  # fmt: skip
async def restart_count(look: Look) -> Ruling:
    """Rule on how often the manager has restarted it."""
    found = await unit_state(look)
    said = await ask_unit(look)
    if not re.fullmatch(r"\d{1,18}", found.get("NRestarts", "")):
        return skipped("the manager doesn't count restarts of this unit")
    limit = look.declared.lifecycle.max_restarts_per_hour if look.declared else DEFAULT_PER_HOUR
    kernel = await look.probe.facts("kernel")
    uptime = kernel.get("uptime_s") if isinstance(kernel, dict) else None
    verdict, text = judge_restarts(found, limit, uptime if isinstance(uptime, int | float) else None, None)
    if verdict == "fail":
        fix = Fix(text="stop it, then look why it ends", argv=control(look, "stop"))
        return failed(text, said.evidence, fix=fix)
    if verdict == "warn":
        return warned(text, said.evidence)
    return passed(text) if verdict == "pass" else noted(text, said.evidence)


@check(
    "svc.disabled-override", "service", reads="UnitFileState, LoadState",
    fails_when="it is declared enabled, and masked or disabled on the host", platforms=("Linux",), after=("svc.state",),
)  # fmt: skip
async def disabled_override(look: Look) -> Ruling:
    """Compare what is declared with what is enabled."""
    found = await unit_state(look)
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
    after=("svc.state",),
)  # fmt: skip
async def stale(look: Look) -> Ruling:
    """Rule on whether the manager has the definition that is on disk."""
    found = await unit_state(look)
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
    fails_when="the last start failed before its program ran", platforms=("Linux",), after=("svc.state",),
)  # fmt: skip
async def bootstrap_error(look: Look) -> Ruling:
    """Rule on the manager's own reasons for not starting it."""
    found = await unit_state(look)
    said = await ask_unit(look)
    result = found.get("Result", "")
    if result in ("start-limit-hit", "resources", "protocol", "timeout", "exec-condition"):
        text = f"the last start ended with {result}"
        return (noted if result == "exec-condition" else failed)(text, said.evidence)
    if found.get("ConditionResult") == "no" and found["ActiveState"] == "inactive" and found.get("ExecMainCode") == "0":
        return noted("a condition of the unit was not met, or it was never started", said.evidence)
    return passed("no start has failed in the manager")
