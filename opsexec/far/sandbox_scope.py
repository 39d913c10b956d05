"""A control group from the user's own service manager, for a plain user who may make none where their login stands.

A login over SSH or at a console is in a scope of the system's manager, below which root alone makes groups. The manager
that systemd runs for the user makes one beside the user's services when it is asked, and has the process moved there
(org.freedesktop.systemd1(5), StartTransientUnit; systemd.scope(5)). It takes the group away once it is empty.
"""

from __future__ import annotations

import os
import select
import stat
import time

from opsexec.far.sandbox_groups import CONTROLLERS, LIMITS, PREFIX, groups_hold, lines, memberships, mounts, started

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Mapping
else:
    import _signal as signal  # the modules behind those two, as in sandbox_keep
    import _socket as socket

HELD_BY = "cgroup v2 by systemd"
BUSCTL = "/usr/bin/busctl"
ANSWER_S = 5.0
"""Seconds that the manager gets to answer, and then to have the process moved."""
TEXT = 200
"""Bytes of an error that are shown."""


class Manager:
    """The user's manager: where its bus listens, and where version 2 is mounted. `limits`: those it can hold."""

    __slots__ = ("bus", "limits", "mounted")

    def __init__(self, bus: str, mounted: str, limits: tuple[str, ...]) -> None:
        self.bus = bus
        self.mounted = mounted
        self.limits = limits


def manager(process: str = "/proc/self", runtime: str = "/run/user", busctl: str = BUSCTL) -> Manager | None:
    """Return this user's manager; None for root, and where there is none that answers and has controllers to give."""
    uid = os.geteuid()
    bus = f"{runtime}/{uid}/bus"
    if uid == 0 or not os.access(busctl, os.X_OK) or not _listens(bus, uid):
        return None
    for root, place in mounts(process).get("", ()):
        own = f"{place}/user.slice/user-{uid}.slice/user@{uid}.service"
        given = " ".join(lines(own + "/cgroup.controllers")).split()
        limits = tuple(limit for limit in LIMITS if CONTROLLERS[limit] in given)
        if root == "/" and limits:
            return Manager(bus, place.rstrip("/"), limits)
    return None


def _listens(bus: str, uid: int) -> bool:
    """Whether somebody answers at a socket of this user's."""
    try:
        found = os.lstat(bus)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != uid:
            return False
        asked = socket.socket(socket.AF_UNIX)
        try:
            asked.settimeout(ANSWER_S)
            asked.connect(bus)
        finally:
            asked.close()
    except OSError:
        return False
    return True


def better(process: str = "/proc/self") -> Manager | None:
    """Return the user's manager where it holds all that a group made here would hold, and more."""
    here = set(groups_hold(process))
    found = None if len(here) == len(LIMITS) else manager(process)
    return found if found is not None and here < set(found.limits) else None


def held(process: str = "/proc/self") -> dict[str, str]:
    """Return {limit: by what it would be held here}; a limit that no group can hold isn't there."""
    by = better(process)
    return groups_hold(process) if by is None else dict.fromkeys(by.limits, HELD_BY)


class Scope:
    """The group of one sandbox. `held`: the limits that it holds, known once it was entered."""

    def __init__(self, name: str, wanted: Mapping[str, float], by: Manager, busctl: str = BUSCTL) -> None:
        self.held = set()  # type: set[str]
        self.failed = ""
        self._wanted = wanted
        self._manager = by
        self._busctl = busctl
        self._unit = f"{PREFIX}{os.getpid()}.{started(os.getpid())}.{name}.scope"

    def enter(self, process: str = "/proc/self") -> None:
        """Have this process put in. `failed`: why it wasn't; it is then held as where there is no group."""
        for policy in (("OOMPolicy", "s", "continue"), ()):  # scopes have known it since systemd 253
            self.failed = self._ask(policy)
            if not self.failed:
                break
        until = time.monotonic() + ANSWER_S
        while not self.failed:
            for hierarchy, _, own in memberships(process):
                if hierarchy == "0" and own.endswith(f"/{self._unit}"):
                    self._see(self._manager.mounted + own)
                    return
            if time.monotonic() > until:
                self.failed = "it was not put into the scope in time"
            time.sleep(0.005)

    def killed(self) -> int:
        """Return 0: what the kernel counted goes with the scope."""
        return 0

    def end(self) -> None:
        """Nothing: whoever is inside ends with the sandbox's first process, and the manager takes the rest away."""

    def _see(self, path: str) -> None:
        """Believe what the kernel says is set."""
        for limit, file in (("processes", "pids.max"), ("memory", "memory.max"), ("cpus", "cpu.max")):
            value = " ".join(lines(f"{path}/{file}")).partition(" ")[0]
            if self._wanted.get(limit) and value.isdigit():
                self.held.add(limit)
        missing = [limit for limit in LIMITS if self._wanted.get(limit) and limit not in self.held]
        if missing:
            self.failed = f"the scope holds no {', '.join(missing)}"

    def _ask(self, more: tuple[str, ...]) -> str:
        """Ask the manager for the scope; returns why there is none, "" where there is."""
        wanted = self._wanted
        properties = [("PIDs", "au", "1", str(os.getpid())), ("CollectMode", "s", "inactive-or-failed")]
        if wanted.get("processes"):
            properties.append(("TasksMax", "t", str(int(wanted["processes"]))))
        if wanted.get("memory"):
            properties += [("MemoryMax", "t", str(int(wanted["memory"]))), ("MemorySwapMax", "t", "0")]
        if wanted.get("cpus"):
            properties.append(("CPUQuotaPerSecUSec", "t", str(max(10_000, int(wanted["cpus"] * 1_000_000)))))
        if more:
            properties.append(more)
        words = [word for each in properties for word in each]
        name = "org.freedesktop.systemd1"
        argv = [self._busctl, f"--address=unix:path={self._manager.bus}", "--quiet", f"--timeout={ANSWER_S:g}", "call"]
        argv += [name, "/org/freedesktop/systemd1", f"{name}.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))"]
        return _said([*argv, self._unit, "fail", str(len(properties)), *words, "0"])


def _said(argv: list[str]) -> str:
    """Run a program to its end; returns what it said where it failed, "" where it didn't."""
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    streams = [(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((null, null, writing))]
    try:
        pid = os.posix_spawn(argv[0], argv, {"LC_ALL": "C"}, file_actions=streams, setsigmask=())
    except OSError as error:
        os.close(reading)
        return f"{argv[0]}: {error.strerror}"
    finally:
        os.close(writing)
        os.close(null)
    text = b""
    until = time.monotonic() + 2 * ANSWER_S
    while len(text) < TEXT:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        more = os.read(reading, TEXT) if ready else b""
        if not more:
            break
        text += more
    os.close(reading)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    said = text[:TEXT].decode("utf-8", "replace").strip()
    return "" if status == 0 else said or f"{argv[0]} ended with {status}"
