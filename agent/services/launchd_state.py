"""What launchd knows of a job: `launchctl print`, whose format is no interface. Never seen on a mac: untested there."""

from __future__ import annotations

import re

from agent.services.finding import Evidence, Fix, Ruling, failed, noted, passed, skipped, unknown, warned
from agent.services.launchd_identity import identity
from agent.services.look import Look
from agent.services.probe import Said, Unreadable
from opsexec.handlers.launchctl import NOT_FOUND, REASONS, parse_disabled, parse_print

COULD_NOT_START = 78
"""EX_CONFIG, as the last exit code of a job that launchd could not start: a missing program or log directory."""

STATES = ("running", "not running", "waiting", "spawn scheduled", "spawning", "exited")


async def domain(look: Look) -> str:
    """Return the domain the job belongs to: the system's, or that of the login."""
    return (await identity(look)).domain


async def target(look: Look) -> str:
    """Return the job's service target."""
    return (await identity(look)).target


async def job(look: Look) -> tuple[dict[str, str] | None, Said]:
    """Return the job's keys, None when it isn't loaded; raises Unreadable for an answer nobody knows."""
    said = await look.probe.ask("launchd.job", await target(look))
    if said.rc == NOT_FOUND:
        return None, said
    if said.rc in REASONS:
        raise Unreadable(f"launchctl ended with {said.rc}: {REASONS[said.rc]}", said.evidence)
    found = parse_print(said.require_ok().out)
    if found is None or "state" not in found:
        raise Unreadable("launchctl answers in a format nobody knows", said.evidence)
    return found, said


async def judge_manager(look: Look) -> Ruling:
    """Rule on whether launchd answers, and on the domain that is meant."""
    said = await look.probe.ask("launchd.manager")
    name = said.require_ok().out.strip()
    if name not in ("Aqua", "Background", "LoginWindow", "System", "StandardIO"):
        return unknown("launchctl answered in a way nobody knows", said.evidence)
    if look.user:
        where = await domain(look)
        asked = await look.probe.ask("launchd.job", where)
        if asked.rc != 0:
            text = REASONS.get(asked.rc, f"status {asked.rc}")
            return failed(f"there is no domain {where}: {text}; nobody is logged in?", asked.evidence)
    return passed(f"launchd, {name} session", said.evidence)


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
    said = await look.probe.ask("launchd.disabled", await domain(look))
    text = said.require_ok().out
    if "{" not in text:
        raise Unreadable("launchctl answers in a format nobody knows", said.evidence)
    disabled = parse_disabled(text).get((await identity(look)).label, False)
    if disabled and look.declared.enable:
        fix = Fix(text="bring it in line", argv=("launchctl", "enable", await target(look)), safe=True)
        return failed("declared enabled, and disabled in launchd's database", said.evidence, fix=fix)
    return passed("as declared")


async def judge_stale(look: Look) -> Ruling:
    """Rule on whether the property list that the job was loaded from is there, and is the one that is meant."""
    found, said = await job(look)
    if found is None:
        return skipped("it isn't loaded")
    path = found.get("path", "")
    if not path.startswith("/"):
        return noted(f"it was loaded from no file: {path[:80] or 'launchctl names none'}", said.evidence)
    if not (await look.probe.stat(path)).exists:
        fix = Fix(text="unload it", argv=("launchctl", "bootout", await target(look)))
        return failed("it is loaded, and its property list is gone", Evidence(path=path), said.evidence, fix=fix)
    return passed("its property list is there", Evidence(path=path))


async def judge_bootstrap(look: Look) -> Ruling:
    """Rule on whether launchd could start the job's program at all."""
    found, said = await job(look)
    if found is None:
        return skipped("it isn't loaded")
    code = re.match(r"\d+", found.get("last exit code", ""))
    if code and int(code[0]) == COULD_NOT_START and "pid" not in found:
        return failed("launchd could not start its program: the program or a log's directory is missing",
                      said.evidence)  # fmt: skip
    return passed("no start has failed in launchd")
