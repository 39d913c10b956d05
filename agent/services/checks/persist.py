"""persist.*: everything on a host that starts by itself, compared with a baseline; of a tree under --root too."""

from __future__ import annotations

from agent.services.check import check, on_mac
from agent.services.finding import Evidence, Fix, Ruling, failed, noted, passed, warned
from agent.services.look import Look
from agent.services.persistence import (
    HOME_KINDS,
    KINDS,
    MAC_HOMES,
    MAC_KINDS,
    MAC_ROOT,
    MAX_HOMES,
    Place,
    compare,
    danger,
    homes,
    mark,
    places_of,
)
from agent.services.probe import Unreadable
from opsexec.far.match import normalise
from opsexec.handlers.doctor import SurveyEntry

SHOWN = 20


class Sweep:
    """What one kind of place holds. `entries`: by path below the root; `blind`: what could not be read, and why."""

    def __init__(self) -> None:
        self.entries: dict[str, SurveyEntry] = {}
        self.blind: list[Evidence] = []


def below(root: str, path: str) -> str:
    """Return a path of the examined system as it is on this host."""
    return normalise(f"{root}/{path}")


async def leads_out(look: Look, path: str) -> str | None:
    """Return the first link on the way from the root to a path; None when there is none.

    A link in an image or a backup means a place of that system, and would be followed to one of this host's.
    """
    root = look.options.root.rstrip("/")
    here = root
    for part in path.strip("/").split("/"):
        here = f"{here}/{part}"
        stat = await look.probe.stat(here)
        if not stat.exists:
            return None
        if stat.kind == "link":
            return here
    return None


async def sweep(look: Look, kind: str) -> Sweep:
    """Return what the places of a kind hold."""
    return await look.probe.memo(("persist", look.options.root, kind), lambda: _sweep(look, kind))


async def _sweep(look: Look, kind: str) -> Sweep:
    found = Sweep()
    system = await look.examined()
    directories: list[str] = []
    try:
        directories = await (mac_homes if system == "Darwin" else all_homes)(look)
    except Unreadable as error:
        if kind in HOME_KINDS:
            found.blind.append(Evidence(path="the home directories", excerpt=error.reason))
    for place in places_of(kind, system, directories):
        try:
            await _place(look, place, found)
        except Unreadable as error:
            found.blind.append(Evidence(path=place.path, excerpt=error.reason[:300]))
    return found


async def mac_homes(look: Look) -> list[str]:
    """Return the home directories of the examined macOS: its users stand in no file that can be read."""
    if look.options.root != "/" and await leads_out(look, MAC_HOMES):
        raise Unreadable(f"{MAC_HOMES} of the examined system is a link")
    listed = await look.probe.survey(below(look.options.root, MAC_HOMES), max_entries=MAX_HOMES)
    if listed.cut or listed.denied or listed.unreadable:
        raise Unreadable(f"{MAC_HOMES} can't be listed whole")
    names = [each.path.rpartition("/")[2] for each in listed.entries if each.kind == "directory"]
    return [MAC_ROOT, *(f"{MAC_HOMES}/{name}" for name in names)]


async def all_homes(look: Look) -> list[str]:
    """Return the home directories of the examined system."""
    if look.options.root != "/" and await leads_out(look, "/etc/passwd"):
        raise Unreadable("/etc/passwd of the examined system is a link")
    return homes((await look.probe.read(below(look.options.root, "/etc/passwd"))).text)


async def _place(look: Look, place: Place, found: Sweep) -> None:
    root = look.options.root
    path = below(root, place.path)
    if root != "/":
        link = await leads_out(look, place.path)
        if link:
            raise Unreadable(f"{link} is a link of the examined system, which isn't followed")
    stat = await look.probe.stat(path)
    if not stat.exists:
        return
    if stat.kind != "directory":
        fields = {name: getattr(stat, name) for name in SurveyEntry.__struct_fields__}
        entry = SurveyEntry(**fields)
        found.entries[normalise(place.path)] = entry
        return
    listed = await look.probe.survey(path, depth=place.depth, digest=True)
    for entry in listed.entries:
        if place.names and not entry.path.endswith(place.names):
            continue
        if entry.kind != "directory" or danger(entry):
            found.entries[normalise(place.path) + entry.path[len(path) :]] = entry
    if listed.cut or listed.denied or listed.unreadable:
        text = f"{listed.denied} entries not granted, {listed.unreadable} unreadable" + ("; cut" if listed.cut else "")
        found.blind.append(Evidence(path=place.path, excerpt=text))


def judge(kind: str, found: Sweep, baseline: dict[str, str] | None) -> Ruling:
    """Rule on a sweep: what is dangerous by itself, what is new, and what nobody could see."""
    bad = [Evidence(path=path, excerpt=why) for path, entry in sorted(found.entries.items()) if (why := danger(entry))]
    if bad:
        return failed(f"{bad[0].path}: {bad[0].excerpt}", *bad[:SHOWN])
    now = {path: mark(entry) for path, entry in found.entries.items()}
    if baseline is not None:
        prefix = kind + ":"
        before = {path.removeprefix(prefix): text for path, text in baseline.items() if path.startswith(prefix)}
        changes = compare(before, now)
        evidence = [Evidence(path=path, excerpt=how) for how in ("new", "changed", "gone") for path in changes[how]]
        if evidence:
            counts = ", ".join(f"{len(paths)} {how}" for how, paths in changes.items() if paths)
            first = f"{evidence[0].path} is {evidence[0].excerpt}"
            text = f"{counts} since the baseline: {first}"
            return warned(text, *evidence[:SHOWN], fix=Fix(text="look at each, then save a new baseline"))
    if found.blind:
        raise Unreadable(
            f"{found.blind[0].path} could not be read whole: {found.blind[0].excerpt}", *found.blind[:SHOWN]
        )
    if baseline is None:
        return noted(f"{len(now)} entries, and no baseline to compare them with")
    return passed(f"{len(now)} entries, as in the baseline")


async def _ruled(look: Look, kind: str) -> Ruling:
    return judge(kind, await sweep(look, kind), look.options.baseline)


LINUX = ("Linux",)
MAC = ("Darwin",)


@check("persist.units", "host", reads="unit directories, generators, users' units", platforms=LINUX,
       fails_when="a unit is new or changed since the baseline")  # fmt: skip
async def units(look: Look) -> Ruling:
    """Compare units, timers and generators."""
    return await _ruled(look, "units")


@check("persist.cron", "host", reads="crontab, cron.*, spools of cron and at", platforms=LINUX,
       fails_when="a job is new or changed since the baseline")  # fmt: skip
async def cron(look: Look) -> Ruling:
    """Compare cron and at jobs."""
    return await _ruled(look, "cron")


@check("persist.boot", "host", reads="rc.local, init.d, udev rules, modules-load.d", platforms=LINUX,
       fails_when="something started at boot is new or changed since the baseline")  # fmt: skip
async def boot(look: Look) -> Ruling:
    """Compare what boot starts."""
    return await _ruled(look, "boot")


@check("persist.login", "host", reads="profile.d, PAM, motd, XDG autostart, shells' start files", platforms=LINUX,
       fails_when="something started at a login is new or changed since the baseline")  # fmt: skip
async def login(look: Look) -> Ruling:
    """Compare what a login starts."""
    return await _ruled(look, "login")


@check("persist.loader", "host", reads="ld.so.preload, ld.so.conf.d", platforms=LINUX, severity="high",
       fails_when="a library is loaded into every program, or the loader's configuration has changed")  # fmt: skip
async def loader(look: Look) -> Ruling:
    """Compare what is loaded into every program."""
    found = await sweep(look, "loader")
    preload = found.entries.get("/etc/ld.so.preload")
    if preload is not None and preload.size:
        return failed("ld.so.preload loads a library into every program", Evidence(path="/etc/ld.so.preload"))
    return await _ruled(look, "loader")


@check("persist.keys", "host", reads="authorized_keys, sshd_config.d, sudoers.d", platforms=LINUX, severity="high",
       fails_when="who may log in, or become root, has changed since the baseline")  # fmt: skip
async def keys(look: Look) -> Ruling:
    """Compare who may come in."""
    return await _ruled(look, "keys")


@check("persist.authorization", "host", reads="authorization and directory plugins, their database", platforms=MAC,
       severity="high", fails_when="what decides on logins has changed since the baseline")  # fmt: skip
async def authorization(look: Look) -> Ruling:
    """Compare what decides on logins."""
    return await _ruled(look, "authorization")


@check("persist.profiles", "host", reads="configuration profiles, managed preferences", platforms=MAC,
       fails_when="a profile is new or changed since the baseline")  # fmt: skip
async def profiles(look: Look) -> Ruling:
    """Compare what is managed."""
    return await _ruled(look, "profiles")


for _id, _rule, _reads in (
    ("persist.units", units, "LaunchDaemons and LaunchAgents, of every home too, and StartupItems"),
    ("persist.cron", cron, "crontab, /usr/lib/cron, /var/at"),
    ("persist.boot", boot, "periodic, rc files, launchd.conf, kernel extensions, emond's rules"),
    ("persist.login", login, "login items, login hooks, shells' start files, PAM"),
    ("persist.keys", keys, "authorized_keys, sshd_config.d, sudoers.d"),
):
    on_mac(_id, reads=_reads)(_rule)


async def snapshot(look: Look) -> dict[str, str]:
    """Return a baseline of everything the sweep can see."""
    kinds = MAC_KINDS if await look.examined() == "Darwin" else KINDS
    return {
        f"{kind}:{path}": mark(entry) for kind in kinds for path, entry in (await sweep(look, kind)).entries.items()
    }
