"""lint.* for launchd: the property list of a job. What was never seen on a mac is marked untested in docs/doctor.md."""

from __future__ import annotations

from agent.services.check import check
from agent.services.finding import Ruling, failed, passed, skipped
from agent.services.look import Look
from agent.services.plist_lint import lint_plist
from agent.services.probe import Unreadable

MAC = ("Darwin",)


async def plist_path(look: Look) -> str:
    """Return where the job's property list stands; raises Unreadable where there is none."""
    home = await look.home()
    name = look.service.name
    places = (f"{home}/Library/LaunchAgents", "/Library/LaunchAgents", "/Library/LaunchDaemons")
    for directory in places[:2] if look.user else places[::-1]:
        if (await look.probe.stat(f"{directory}/{name}.plist")).exists:
            return f"{directory}/{name}.plist"
    raise Unreadable(f"there is no property list of {name} on this host")


@check(
    "lint.plist-syntax", "service", reads="the job's property list, as bytes (duplicate keys) and as values (types)",
    fails_when="launchd would refuse it, or understand something else", severity="high", platforms=MAC, blocks=True,
)  # fmt: skip
async def plist_syntax(look: Look) -> list[Ruling] | Ruling:
    """Rule on the property list's form and values."""
    path = await plist_path(look)
    file = await look.probe.read(path)
    return lint_plist(file.data, path) or passed("launchd understands every key")


@check(
    "lint.session-type", "service", reads="LimitLoadToSessionType and where the property list stands",
    fails_when="a daemon asks for a login session, or an agent for the system's", platforms=MAC,
    after=("lint.plist-syntax",),
)  # fmt: skip
async def session_type(look: Look) -> Ruling:
    """Compare the session type with the domain."""
    import plistlib

    path = await plist_path(look)
    file = await look.probe.read(path)
    try:
        job = plistlib.loads(file.data)
    except (plistlib.InvalidFileException, ValueError, LookupError, OverflowError, RecursionError) as error:
        raise Unreadable(f"{path} is no property list", root="lint.plist-syntax") from error
    wanted = job.get("LimitLoadToSessionType") if isinstance(job, dict) else None
    kinds = wanted if isinstance(wanted, list) else [wanted]
    daemon = path.startswith("/Library/LaunchDaemons/")
    if wanted is None:
        return skipped("it names no session type")
    if daemon != ("System" in kinds):
        return failed(f"{'a daemon' if daemon else 'an agent'} with LimitLoadToSessionType {wanted}")
    return passed("its session type fits its place")
