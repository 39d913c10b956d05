"""logs.dir: the directories a service logs into."""

from __future__ import annotations

from agent.services.check import check
from agent.services.finding import Evidence, Fix, Ruling, failed, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Unreadable
from opsexec.far.match import normalise
from opsexec.handlers.far_answers import Entry

LEAST_FREE = 256 << 20
LARGE = 1 << 30
SHARED = ("/tmp/", "/var/tmp/", "/private/tmp/", "/private/var/tmp/")
"""Bytes: less free space than this, or a larger log, warns."""


def may_write(stat: Entry, uid: int, gids: set[int]) -> bool:
    """True when a user may make files in a directory, by its owner and mode (ACLs are not looked at)."""
    mode = int(stat.mode, 8)
    if uid == 0:
        return True
    if stat.uid == uid:
        return mode & 0o300 == 0o300
    if stat.gid in gids:
        return mode & 0o030 == 0o030
    return mode & 0o003 == 0o003


async def account(look: Look) -> tuple[int, set[int], str]:
    """Return uid, gids and name of who the service runs as; raises Unreadable for a name the host doesn't know."""
    from agent.services.definition import definition

    if look.user:
        return await look.uid(), set(), await look.user_name()
    try:
        name = (await definition(look)).unit.value("Service", "User", "root")
    except Unreadable:
        name = "root"
    if name.isdigit():
        return int(name), set(), name
    for line in (await look.probe.read("/etc/passwd")).text.splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3 and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), {int(fields[3])}, name
    raise Unreadable(f"the host knows no user {name[:40]}")


@check(
    "logs.dir", "service", reads="the directories of [logs], their owner and mode, free space, the logs' sizes",
    fails_when="one is missing, everybody's (/tmp), or the service may not write there; a full disk or huge log warns",
)  # fmt: skip
async def log_directories(look: Look) -> Ruling:
    """Rule on where it logs."""
    if look.declared is None or not look.declared.logs.paths:
        return skipped("it logs to the journal")
    uid, gids, name = await account(look)
    disks = await look.probe.facts("disks")
    for path in look.declared.logs.paths:
        try:
            path = normalise(path)
        except ValueError:
            return failed(f"{path[:80]} is no absolute path")
        directory = path.rpartition("/")[0] or "/"
        if path.startswith(SHARED):
            return failed(f"{path} is in a directory that everybody writes to", Evidence(path=path))
        stat = await look.probe.stat(directory)
        at = Evidence(path=directory)
        if not stat.exists:
            argv = ("install", "-d", "-o", name, "-m", "0750", directory)
            return failed(f"{directory} doesn't exist", at, fix=Fix(text="make it", argv=argv, safe=True))
        if stat.kind != "directory":
            return failed(f"{directory} is a {stat.kind}", at)
        if not may_write(stat, uid, gids):
            return failed(f"{name} may not write to {directory} (mode {stat.mode}, {stat.owner})", at)
        file = await look.probe.stat(path)
        if file.exists and file.size > LARGE:
            return warned(f"{path} has {file.size >> 20} MiB: nothing rotates it", Evidence(path=path))
        free = free_at(disks, directory)
        if free is not None and free < LEAST_FREE:
            return warned(f"{free >> 20} MiB are free for {directory}", at)
    if not isinstance(disks, list):
        return unknown("the host can't tell its free space")
    return passed(f"{name} may write to them, and there is space")


def free_at(disks: object, path: str) -> int | None:
    """Return the free bytes of the mount a path is on; None when the host doesn't say."""
    best, free = "", None
    for disk in disks if isinstance(disks, list) else []:
        mount = str(disk.get("mount", ""))
        if (path == mount or path.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, free = mount, disk.get("free_bytes")
    return free if isinstance(free, int) else None
