"""svc.* where launchd is the manager: the property list as a file, and what launchd makes of it. Untested on a mac."""

from __future__ import annotations

from agent.services import launchd_state
from agent.services.check import on_mac
from agent.services.checks import svc_files
from agent.services.command_line import base
from agent.services.finding import Evidence, Ruling, failed, passed, skipped, unknown
from agent.services.launchd_job import AGENTS, DAEMONS, MOST, Job, find_job, parse_job
from agent.services.look import Look
from agent.services.probe import Unreadable
from agent.services.receipt import MARKER


async def jobs(look: Look) -> tuple[list[Job], list[str]]:
    """Return the jobs of the three directories, and the paths that could not be read."""
    found: list[Job] = []
    blind: list[str] = []
    own = f"{await look.home()}/Library/LaunchAgents"
    for directory in (own, AGENTS, DAEMONS):
        listed = await look.probe.survey(directory, max_entries=MOST)
        if listed.cut or listed.denied or listed.unreadable:
            blind.append(directory)
        for entry in listed.entries:
            if not entry.path.endswith(".plist"):
                continue
            try:
                found.append(parse_job(await look.probe.read(entry.path)))
            except Unreadable:
                blind.append(entry.path)
    return found, blind


@on_mac("svc.duplicate", reads="the labels of all property lists in the three directories; `path` of `launchctl print`")
async def duplicate(look: Look) -> Ruling:
    """Look for more than one property list of the label."""
    own = await find_job(look)
    found, blind = await jobs(look)
    places = sorted({each.file.asked for each in found if each.label and each.label == own.label} | {own.file.asked})
    if len(places) > 1:
        more = f"{len(places) - 1} more property list{'s' * (len(places) > 2)} of {own.label}"
        return failed(more, *(Evidence(path=place) for place in places))
    loaded, said = await launchd_state.job(look)
    path = loaded.get("path", "") if loaded else ""
    if path.startswith("/") and path not in (own.file.asked, own.file.path):
        return failed(f"launchd has loaded it from {path[:200]}", Evidence(path=own.file.asked), said.evidence)
    if blind:
        return unknown(f"{blind[0]} can't be read: its label may be the same", *(Evidence(path=each) for each in blind))
    return passed("one property list")


@on_mac("svc.conflict", reads="the first lines of the property list")
async def conflict(look: Look) -> Ruling:
    """Rule on whose property list it is."""
    if look.declared is None:
        return skipped("nothing is declared of it")
    file = (await find_job(look)).file
    mark = f"<!-- {MARKER.lstrip('# ')}{look.service.name.replace('--', '-')} -->".encode()
    if any(line.strip() == mark for line in file.data.split(b"\n", 6)[:6]):
        return passed("the property list is ours")
    return failed("the property list was not made by ops-agent", Evidence(path=file.asked))


@on_mac("svc.stale", reads="`path` of `launchctl print`")
async def stale(look: Look) -> Ruling:
    """Rule on whether the job's property list is still there."""
    return await launchd_state.judge_stale(look)


@on_mac("svc.bootstrap-error", reads="`last exit code` of `launchctl print`")
async def bootstrap_error(look: Look) -> Ruling:
    """Rule on launchd's own reasons for not starting it."""
    return await launchd_state.judge_bootstrap(look)


@on_mac("svc.scope", reads="the directory of the property list")
async def scope(look: Look) -> Ruling:
    """Rule on whether it stands where it was declared."""
    if look.declared is None:
        return skipped("nothing is declared of it")
    path = (await find_job(look)).file.asked
    at = Evidence(path=path)
    directory = path.removesuffix("/" + base(path))
    if look.declared.scope == "user" and directory in (AGENTS, DAEMONS):
        return failed("declared for a user, installed by root for every login", at)
    if look.declared.scope == "system" and directory != DAEMONS:
        return failed("declared for the system, installed as an agent of a login", at)
    return passed(f"a {look.declared.scope} job, as declared")


on_mac("svc.perms", reads="owner and mode of the property list, its scripts, programs, and all directories above")(
    svc_files.perms
)
