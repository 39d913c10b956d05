"""What launchd knows of a job: `launchctl print`, whose format is no interface. Never seen on a mac: untested there."""

from __future__ import annotations

import re

from agent.services.finding import Fix, Ruling, failed, noted, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Said, Unreadable

NOT_FOUND = 113
"""launchctl's exit status for a job that isn't loaded (`launchctl error 113`)."""

STATES = ("running", "not running", "waiting", "spawn scheduled", "spawning", "exited")


def parse_print(text: str) -> dict[str, str] | None:
    """Return the keys of the outermost block alone; None for a text that is no such block."""
    lines = text.splitlines()
    if not lines or not re.fullmatch(r"\S+ = \{", lines[0].rstrip()):
        return None
    found: dict[str, str] = {}
    depth = 1
    for line in lines[1:]:
        bare = line.strip()
        if bare.endswith("{"):
            depth += 1
        elif bare == "}":
            depth -= 1
            if depth == 0:
                return found
        elif depth == 1:
            key, equals, value = bare.partition(" = ")
            if equals:
                found.setdefault(key, value)
    return None  # cut off, or something else


def parse_disabled(text: str) -> dict[str, bool]:
    """Return the override database of `launchctl print-disabled`: label -> disabled; it has been written two ways."""
    words = {"true": True, "disabled": True, "false": False, "enabled": False}
    rows = re.findall(r'^\s*"([^"\n]+)" => (true|false|enabled|disabled)\s*$', text, re.MULTILINE)
    return {label: words[word] for label, word in rows}


async def target(look: Look) -> str:
    """Return the job's service target."""
    return f"gui/{await look.uid()}/{look.service.name}" if look.user else f"system/{look.service.name}"


async def job(look: Look) -> tuple[dict[str, str] | None, Said]:
    """Return the job's keys, None when it isn't loaded; raises Unreadable for an answer nobody knows."""
    said = await look.probe.ask("launchd.job", await target(look))
    if said.rc == NOT_FOUND:
        return None, said
    found = parse_print(said.require_ok().out)
    if found is None or "state" not in found:
        raise Unreadable("launchctl answers in a format nobody knows", said.evidence)
    return found, said


async def judge_state(look: Look) -> Ruling:
    """Rule on whether the job is loaded and runs."""
    found, said = await job(look)
    name = look.service.name
    if found is None:
        text = f"launchd has no job {name}"
        return noted(text + ", which is declared", said.evidence) if look.declared else failed(text, said.evidence)
    if found["state"] not in STATES:
        return unknown(f"{name} is in a state nobody knows: {found['state'][:60]}", said.evidence)
    return passed(f"{name} is {found['state']}", said.evidence)


async def judge_exit(look: Look) -> Ruling:
    """Rule on how the job ended last, like `0`, `78: EX_CONFIG` or `(never exited)`."""
    found, said = await job(look)
    if found is None:
        return skipped("it isn't loaded")
    signal = found.get("last terminating signal")
    code = found.get("last exit code", "(never exited)")
    if signal:
        return warned(f"it was ended by {signal[:60]}", said.evidence)
    if code == "(never exited)" or re.fullmatch(r"0(:.*)?", code):
        return passed("no bad end is on record", said.evidence)
    if not re.match(r"\d+", code):
        return unknown("launchctl doesn't say how it ended", said.evidence)
    return warned(f"it ended with {code[:60]}", said.evidence)


async def judge_restarts(look: Look, limit: int) -> Ruling:
    """Rule on how often launchd has started the job since it was loaded."""
    found, said = await job(look)
    if found is None:
        return skipped("it isn't loaded")
    runs = found.get("runs", "")
    if not re.fullmatch(r"[0-9]{1,18}", runs):
        return unknown("launchctl doesn't say how often it was started", said.evidence)
    if int(runs) > limit + 1 and found["state"] in ("spawn scheduled", "waiting"):
        fix = Fix(text="unload it, then look why it ends", argv=("launchctl", "bootout", await target(look)))
        return failed(f"it is between two of {runs} starts", said.evidence, fix=fix)
    if int(runs) > limit + 1:
        return warned(f"{runs} starts since it was loaded", said.evidence)
    return passed(f"{runs} starts since it was loaded")


async def judge_disabled(look: Look) -> Ruling:
    """Compare the override database with the declaration."""
    if look.declared is None:
        return skipped("nothing is declared of it")
    said = await look.probe.ask("launchd.disabled")
    disabled = parse_disabled(said.require_ok().out).get(look.service.name, False)
    if disabled and look.declared.enable:
        fix = Fix(text="bring it in line", argv=("launchctl", "enable", await target(look)), safe=True)
        return failed("declared enabled, and disabled in launchd's database", said.evidence, fix=fix)
    return passed("as declared")
