"""svc.*: the service's definition as files: whose it is, who may change it, and what else goes by its name."""

from __future__ import annotations

from agent.services.check import check
from agent.services.command_line import split_exec
from agent.services.definition import SYSTEM_PATHS, definition, scripts, unit_paths
from agent.services.finding import Evidence, Fix, Ruling, failed, noted, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Unreadable
from agent.services.receipt import MARKER
from opsexec.far.match import normalise
from opsexec.handlers.far_answers import Entry

HOPS = 24
"""Steps of links to a program that are followed."""


@check(
    "svc.duplicate", "service", reads="every unit directory of the system's and the login's manager",
    fails_when="another definition of the name is hidden by the one in force, or drop-ins that aren't ours change it",
    platforms=("Linux",),
)  # fmt: skip
async def duplicate(look: Look) -> Ruling:
    """Look for more than one definition of the name."""
    unit = look.service.unit
    found = await definition(look)
    places = []
    seen = set()
    for directory in dict.fromkeys((*await unit_paths(look), *SYSTEM_PATHS)):
        stat = await look.probe.stat(f"{directory}/{unit}")
        if stat.exists and stat.path not in seen:
            seen.add(stat.path)
            places.append(f"{directory}/{unit}")
    others = [place for place in places if place not in (found.main.asked, found.main.path)]
    others = [place for place in others if (await look.probe.stat(place)).kind != "link"]
    if others:
        evidence = tuple(Evidence(path=place) for place in (found.main.asked, *others))
        return failed(f"{len(others)} more definition{'s' * (len(others) > 1)} of {unit}", *evidence)
    receipt = look.service.receipt
    known = set(receipt.files) if receipt else set()
    foreign = [file.asked for file in found.files[1:] if file.asked not in known]
    if foreign:
        text = f"{len(foreign)} drop-in{'s' * (len(foreign) > 1)} change it"
        evidence = tuple(Evidence(path=path) for path in foreign)
        return (failed if receipt else noted)(text, *evidence)
    return passed("one definition")


@check(
    "svc.conflict", "service", reads="the first lines of the definition",
    fails_when="a service is declared here, and the definition on the host is somebody else's",
    platforms=("Linux",), severity="high", blocks=True,
)  # fmt: skip
async def conflict(look: Look) -> Ruling:
    """Rule on whose definition it is."""
    if look.declared is None:
        return skipped("nothing is declared of it")
    if look.declared.runtime == "systemd":
        return skipped("declared as a unit of the system's own")
    found = await definition(look)
    mark = (MARKER + look.service.name).encode()
    if any(line.strip() == mark for line in found.main.data.split(b"\n", 3)[:3]):
        return passed("the definition is ours")
    return failed("the definition was not made by ops-agent", Evidence(path=found.main.asked))


@check(
    "svc.drift", "service", reads="sha256 of everything the receipt of the install lists",
    fails_when="a file is not as it was installed",
)  # fmt: skip
async def drift(look: Look) -> Ruling:
    """Compare files with the receipt."""
    if look.service.problem:
        return unknown(look.service.problem)
    receipt = look.service.receipt
    if receipt is None:
        return skipped("it was not installed by ops-agent")
    changed = []
    for path, digest in sorted(receipt.files.items()):
        stat = await look.probe.stat(path)
        if not stat.exists:
            changed.append(Evidence(path=path, excerpt="gone"))
        elif stat.sha256 is None:
            return unknown(f"{path} can't be read", Evidence(path=path))
        elif stat.sha256 != digest:
            changed.append(Evidence(path=path, excerpt=f"sha256 {stat.sha256}, installed {digest}"))
    if changed:
        return warned(f"{len(changed)} of {len(receipt.files)} files are not as they were installed", *changed)
    return passed(f"{len(receipt.files)} files are as they were installed")


def judge_place(stat: Entry, owners: tuple[int, ...]) -> str | None:
    """Return what is wrong with a file's or directory's owner and mode; None when nothing is."""
    mode = int(stat.mode, 8)
    if stat.uid not in owners:
        return f"belongs to {stat.owner}"
    if stat.kind == "link" or (stat.kind == "directory" and mode & 0o1000):
        return None
    if mode & 0o022:
        return f"is writable for others (mode {stat.mode})"
    return None


@check(
    "svc.perms", "service", reads="owner and mode of the definition, its scripts, programs, and all directories above",
    fails_when="somebody else may change what the manager runs", severity="high", platforms=("Linux",),
    blocks=True,
)  # fmt: skip
async def perms(look: Look) -> Ruling:
    """Rule on who may change the definition and what it starts."""
    found = await definition(look)
    owners = (0, await look.uid()) if look.user else (0,)
    account = "" if look.user else found.unit.value("Service", "User")
    paths = {file.path for file in found.files} | {script.file.path for script in await scripts(look)}
    for setting in found.unit.commands()[:32]:
        _, words = split_exec(setting.value)
        if words and words[0].startswith("/") and "%" not in words[0]:
            paths |= set(await way_to(look, normalise(words[0])))
    everything = {above for path in paths for above in ancestors(path)}
    wrong = []
    for path in sorted(everything):
        stat = await look.probe.stat(path)
        if path.startswith("/home/") and account not in ("", "root", "0") and account in (stat.owner, str(stat.uid)):
            continue  # what runs as somebody may be theirs, where they are at home
        why = judge_place(stat, owners) if stat.exists else None
        if why:
            wrong.append(Evidence(path=path, excerpt=why))
    if wrong:
        first = wrong[0]
        fix = Fix(text="take the others' write permission", argv=("chmod", "go-w", first.path or ""))
        return failed(f"{first.path} {first.excerpt}", *wrong[:20], fix=fix if "writable" in first.excerpt else None)
    return passed(f"{len(everything)} files and directories are in safe hands")


async def way_to(look: Look, path: str) -> list[str]:
    """Return a program's path, and those that it leads to, link by link: who may change the last may change it."""
    way = [path]
    while len(way) <= HOPS:
        stat = await look.probe.stat(way[-1])
        real = stat.path or way[-1]  # without links among its directories
        if real != way[-1]:
            way.append(real)
        if stat.kind != "link" or not stat.target:
            return way
        way.append(
            normalise(stat.target if stat.target.startswith("/") else f"{real.rpartition('/')[0]}/{stat.target}")
        )
    raise Unreadable(f"{path} leads through over {HOPS} links", Evidence(path=path))


def ancestors(path: str) -> list[str]:
    """Return a path and every directory above it."""
    parts = path.strip("/").split("/")
    return ["/", *("/" + "/".join(parts[: at + 1]) for at in range(len(parts)))]


@check(
    "svc.scope", "service", reads="where the definition stands",
    fails_when="a user's service is installed for the whole system, or the other way round", platforms=("Linux",),
)  # fmt: skip
async def scope(look: Look) -> Ruling:
    """Rule on whether it stands where it was declared."""
    declared = look.declared
    if declared is not None and declared.scope == "user":
        # A user's manager doesn't read these: it would only say that there is no such unit.
        for directory in SYSTEM_PATHS:
            path = f"{directory}/{look.service.unit}"
            if (await look.probe.stat(path)).exists:
                return failed("declared for a user, and installed for the system", Evidence(path=path))
    found = await definition(look)
    system = found.main.asked.startswith(SYSTEM_PATHS)
    if declared is None:
        return skipped("nothing is declared of it")
    if declared.scope == "system" and not system:
        return failed("declared for the system, installed for a user", Evidence(path=found.main.asked))
    return passed(f"a {declared.scope} service, as declared")


@check(
    "svc.legacy", "service", reads="the paths under `legacy` in the declaration", fails_when="one of them still exists",
)  # fmt: skip
async def legacy(look: Look) -> Ruling:
    """Look for definitions that were replaced."""
    if look.declared is None or not look.declared.legacy:
        return skipped("no legacy definition is declared")
    left = [path for path in look.declared.legacy if (await look.probe.stat(path)).exists]
    if left:
        return failed(f"{left[0]} is still there", *(Evidence(path=path) for path in left))
    return passed(f"none of {len(look.declared.legacy)} legacy definitions is left")
