"""A control group of a sandbox's own, where this host lets this user make one: version 2, or version 1's hierarchies.

What a group can't be made for isn't held, and `held` says so before anything is started. A group is removed by who made
it; one whose maker was killed is empty, and taken away by the next sandbox.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "opsexec-"
LIMITS = ("processes", "memory", "cpus")
CONTROLLERS = {"processes": "pids", "memory": "memory", "cpus": "cpu"}
PERIOD_US = 100_000
EMPTY_S = 2.0
"""Seconds that the kernel gets to take the dead out of a group before it is left for the next sandbox to remove."""


class Parent:
    """A directory below which a group may be made, and the limits it can hold there."""

    __slots__ = ("limits", "path", "version")

    def __init__(self, path: str, version: int, limits: tuple[str, ...]) -> None:
        self.path = path
        self.version = version
        self.limits = limits


def parents(process: str = "/proc/self") -> list[Parent]:
    """Return where groups can be made, each limit at one place at most."""
    mounted = mounts(process)
    found = []  # type: list[Parent]
    have = set()  # type: set[str]
    for hierarchy, words, own in memberships(process):
        limits = [limit for limit in LIMITS if limit not in have and CONTROLLERS[limit] in words.split(",")]
        if hierarchy != "0" and limits:
            for root, place in mounted.get(words, ()):
                path = _below(place, root, own)
                if path and _may_make(path):
                    found.append(Parent(path, 1, tuple(limits)))
                    have.update(limits)
                    break
    for hierarchy, _, own in memberships(process):
        wanted = [limit for limit in LIMITS if limit not in have]
        if hierarchy == "0" and wanted:
            for root, place in mounted.get("", ()):
                parent = _unified(place, _below(place, root, own), wanted)
                if parent:
                    found.append(parent)
                    break
    return found


def groups_hold(process: str = "/proc/self") -> dict[str, str]:
    """Return {limit: by what it would be held in groups made here}; a limit that none can hold isn't there."""
    return {limit: f"cgroup v{each.version}" for each in parents(process) for limit in each.limits}


def memberships(process: str) -> list[tuple[str, str, str]]:
    """Return (hierarchy, controllers, path) of proc(5)'s cgroup file."""
    found = []
    for line in lines(process + "/cgroup"):
        hierarchy, _, rest = line.partition(":")
        words, _, path = rest.partition(":")
        found.append((hierarchy, words, path))
    return found


def mounts(process: str) -> dict[str, list[tuple[str, str]]]:
    """Return controllers -> (the part that is mounted, where); version 2 stands under ""."""
    found = {}  # type: dict[str, list[tuple[str, str]]]
    for line in lines(process + "/mountinfo"):
        fields, _, last = line.partition(" - ")
        kind, _, options = last.partition(" ")
        root, place = fields.split(" ")[3:5]
        if kind == "cgroup2":
            found.setdefault("", []).append((root, place))
        elif kind == "cgroup":
            words = [word for word in options.rpartition(" ")[2].split(",") if word in _V1]
            found.setdefault(",".join(words), []).append((root, place))
    return found


_V1 = frozenset(("pids", "memory", "cpu", "cpuacct", "cpuset", "blkio", "devices", "freezer", "net_cls", "net_prio"))


def _below(place: str, root: str, own: str) -> str:
    """Return where our own group is in the file system, or "" where this mount doesn't show it."""
    if root == "/":
        return place.rstrip("/") + own.rstrip("/")
    if own == root or own.startswith(root + "/"):
        return place + own[len(root) :]
    return ""


def _may_make(path: str) -> bool:
    return os.access(path, os.W_OK) and os.access(path + "/cgroup.procs", os.W_OK)


def _unified(top: str, own: str, wanted: Sequence[str]) -> Parent | None:
    """Return the nearest group above our own that gives its children most of these limits, and lets us make one.

    Version 2 gives a group's children controllers only where the group itself holds no process, so never below our own;
    the machine's topmost, which has no type, may hold some all the same (cgroup-v2, "No Internal Process Constraint").
    """
    best = None  # type: Parent | None
    at = own if not os.path.exists(own + "/cgroup.type") else own.rpartition("/")[0]
    while at and len(at) >= len(top):
        given = " ".join(lines(at + "/cgroup.subtree_control")).split()
        limits = tuple(limit for limit in wanted if CONTROLLERS[limit] in given)
        if limits and _may_make(at) and (best is None or len(limits) > len(best.limits)):
            best = Parent(at, 2, limits)
        at = at.rpartition("/")[0]
    return best


def is_root(process: str = "/proc/self") -> bool:
    """True for the machine's own root, whose number of processes no limit but a group's bounds (setrlimit(2))."""
    return os.getuid() == 0 and any(line.split()[:2] == ["0", "0"] for line in lines(process + "/uid_map"))


class Groups:
    """The groups of one sandbox. `held`: the limits that they hold."""

    failed = ""

    def __init__(self, name: str, wanted: Mapping[str, float], process: str = "/proc/self") -> None:
        """Make them; raises OSError where a limit can't be set in a group that could be made."""
        self.held = set()  # type: set[str]
        self._paths = []  # type: list[str]
        mark = f"{PREFIX}{os.getpid()}.{started(os.getpid())}.{name}"
        for parent in parents(process):
            limits = [limit for limit in parent.limits if wanted.get(limit)]
            if not limits:
                continue
            _sweep(parent.path)
            path = f"{parent.path}/{mark}"
            try:
                os.mkdir(path, 0o755)
            except OSError:
                continue  # what looked writable isn't: not held
            self._paths.append(path)
            for limit in limits:
                for file, text in _settings(limit, wanted[limit], parent.version):
                    _write(f"{path}/{file}", text)
                self.held.add(limit)

    def enter(self) -> None:
        """Put this process in. Raises OSError: nothing starts outside a group that was made for it."""
        for path in self._paths:
            _write(path + "/cgroup.procs", "0")

    def killed(self) -> int:
        """Return how many processes inside the kernel has ended because the group's memory was used up."""
        found = 0
        for path in self._paths:
            for line in (*lines(path + "/memory.events"), *lines(path + "/memory.oom_control")):
                name, _, value = line.partition(" ")
                found += int(value) if name == "oom_kill" else 0
        return found

    def end(self) -> None:
        """Kill what is still inside, and remove them."""
        until = time.monotonic() + EMPTY_S
        for path in self._paths:
            while not _removed(path):
                for pid in lines(path + "/cgroup.procs"):
                    _kill(int(pid))
                if time.monotonic() > until:
                    return
                time.sleep(0.005)


def _settings(limit: str, value: float, version: int) -> list[tuple[str, str]]:
    if limit == "processes":
        return [("pids.max", str(int(value)))]
    if limit == "cpus":
        quota = str(max(1000, int(value * PERIOD_US)))
        if version == 2:
            return [("cpu.max", f"{quota} {PERIOD_US}")]
        return [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", quota)]
    if version == 2:
        return [("memory.max", str(int(value))), ("?memory.swap.max", "0")]
    # Memory and swap together may not be less than memory: in this order.
    return [("memory.limit_in_bytes", str(int(value))), ("?memory.memsw.limit_in_bytes", str(int(value)))]


def _write(path: str, text: str) -> None:
    """Write a setting; a `?` before its name: where the kernel has it."""
    place, _, name = path.rpartition("/")
    if name.startswith("?"):
        path = f"{place}/{name[1:]}"
        if not os.path.exists(path):
            return
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _sweep(parent: str) -> None:
    """Remove the empty groups of makers that are gone."""
    for name in os.listdir(parent):
        if name.startswith(PREFIX):
            pid, _, rest = name[len(PREFIX) :].partition(".")
            if not pid.isdigit() or started(int(pid)) != rest.partition(".")[0]:
                _removed(f"{parent}/{name}")


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:  # somebody is still inside
        return False
    return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except (ProcessLookupError, PermissionError):
        return  # gone meanwhile, or, on a host without us as its owner, not ours to end


def started(pid: int) -> str:
    """Return when a process began, in ticks since boot (proc(5)); "" where there is none."""
    text = "".join(lines(f"/proc/{pid}/stat"))
    fields = text[text.rfind(")") + 2 :].split()
    return fields[19] if len(fields) > 19 else ""


def lines(path: str) -> list[str]:
    """Return the lines of a file of the kernel's; none where it isn't there."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:  # no such file: no such controller here
        return []
