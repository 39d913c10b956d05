"""Ending a run's whole process tree, also the children that left its group or session.

A process belongs to a run when it carries the run's marker in its environment, shares the leader's session or group,
or descends from one that does. What can't be caught: a process that cleared its environment AND started a new session
AND whose parents are all gone; and one that became another user where the session is not root.
"""

from __future__ import annotations

import errno
import os
import signal
import time

from opsexec.far.launch import MARKER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LAST_RESORT_S = 2.0
"""Seconds of repeated SIGKILL before what still lives is reported as a survivor."""
LISTINGS = 20
"""How often /proc is listed at most for one look: where something is always being born, that takes no end."""

GONE_TOO = (errno.EINVAL, errno.ENOENT)
"""What pidfd_open(2) says, beside ESRCH, of a process that is being reaped just then, or whose number is a thread's by
now: EINVAL at least up to Linux 6.1, ENOENT of a thread on 6.18."""


def members(run: str, leader: int, known: Mapping[int, str], reaped: bool = False) -> dict[int, str]:
    """Return {pid: start time} of the living processes of a run; `known` are those already found to be of it.

    `leader` is the pid of the run's first process, 0 when it is not known. `reaped`: its status has been read, so
    that pid may be another process's by now: the kernel gives it away once the group and session are empty.

    /proc is listed until there is nobody new: one that was listed may have had a child since, and ended before it was
    looked at. Who is born later has a parent that was.
    """
    if leader > 0 and _is_anothers(leader, known, reaped):
        leader = 0
    needle = (MARKER + "=").encode()
    mark = run.encode()
    parents = {}  # type: dict[int, int]
    starts = {}  # type: dict[int, str]
    found = set()  # type: set[int]
    listed = {os.getpid()}
    for _ in range(LISTINGS):
        fresh = _pids() - listed
        if not fresh:
            break
        listed |= fresh
        for pid in sorted(fresh):
            fields = _stat(pid)
            if fields is None:
                continue
            parents[pid] = int(fields[1])
            starts[pid] = fields[19]
            led = leader > 0 and leader in (pid, int(fields[2]), int(fields[3]))  # 0 is what kernel threads have
            if led or known.get(pid) == fields[19] or _marked(pid, needle, mark):
                found.add(pid)
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in found and pid not in found:
                found.add(pid)
                grown = True
    return {pid: starts[pid] for pid in found}


def _pids() -> set[int]:
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}


def _is_anothers(leader: int, known: Mapping[int, str], reaped: bool) -> bool:
    """True when the process that has the leader's pid now is not the leader."""
    if reaped:
        return os.path.exists(f"/proc/{leader}")
    fields = _stat(leader)
    return fields is not None and known.get(leader, fields[19]) != fields[19]


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name (state first, see proc(5)); None when gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("ascii", "replace")
    except OSError:  # it is gone
        return None
    fields = text[text.rfind(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else fields


def _marked(pid: int, needle: bytes, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            data = file.read()
    except OSError:  # it is gone, or another user's: it is found by its session or parents, if at all
        return False
    if needle not in data:
        return False
    pairs = data.split(b"\0")
    return any(pair.startswith(needle) and mark in pair[len(needle) :].split(b"/") for pair in pairs)


def send(pid: int, start: str, number: int) -> None:
    """Signal a process if it still is the one that began at `start`; a pid that was reused is left alone."""
    opener = getattr(os, "pidfd_open", None)
    sender = getattr(signal, "pidfd_send_signal", None)
    try:
        if opener is None or sender is None:
            os.kill(pid, number)
            return
        try:
            handle = opener(pid)
        except OSError as error:
            if error.errno in GONE_TOO:
                return
            raise
        try:
            fields = _stat(pid)
            if fields is not None and fields[19] == start:
                sender(handle, number)
        finally:
            os.close(handle)
    except (ProcessLookupError, PermissionError):
        return  # gone already, or another user's: `members` keeps listing it and it is reported as a survivor


class TreeEnd:
    """Ends one tree step by step, so that an event loop can go on meanwhile: SIGTERM, grace, then SIGKILL."""

    def __init__(self, run: str, leader: int, grace_s: float, reaped: bool = False) -> None:
        self.run = run
        self.leader = leader
        self.reaped = reaped
        self.survivors = 0
        self._kill_at = time.monotonic() + grace_s
        self._give_up_at = self._kill_at + LAST_RESORT_S
        self._asked = set()  # type: set[int]
        self._seen = {}  # type: dict[int, str]

    def step(self) -> float | None:
        """Do what is due; returns the seconds until the next step, None when the tree is gone or given up."""
        if not os.path.exists("/proc/self/stat"):
            return self._group_only()
        alive = members(self.run, self.leader, self._seen, self.reaped)
        self._seen.update(alive)
        now = time.monotonic()
        if not alive:
            return None
        if now >= self._give_up_at:
            self.survivors = len(alive)
            return None
        killing = now >= self._kill_at
        for pid, start in alive.items():
            if killing:
                send(pid, start, signal.SIGKILL)
            elif pid not in self._asked:
                self._asked.add(pid)
                send(pid, start, signal.SIGTERM)
                send(pid, start, signal.SIGHUP)
                send(pid, start, signal.SIGCONT)
        return 0.02 if killing else min(0.05, max(0.005, self._kill_at - now))

    def _group_only(self) -> float | None:
        """Without /proc only the leader's process group can be reached."""
        if self.leader <= 0 or self.reaped:
            return None
        try:
            os.killpg(self.leader, signal.SIGKILL)
        except ProcessLookupError:
            return None
        except PermissionError:  # nothing in it is ours; or, where some was, no more than its zombies are left
            self.survivors = 0 if self._asked else 1
            return None
        self._asked.add(self.leader)
        return 0.02 if time.monotonic() < self._give_up_at else None


def end_now(runs: Collection[tuple[str, int]], grace_s: float) -> int:
    """End several trees, blocking; returns how many processes survived."""
    ends = [TreeEnd(run, leader, grace_s) for run, leader in runs]
    survivors = 0
    while ends:
        waits = []
        for end in list(ends):
            wait = end.step()
            if wait is None:
                ends.remove(end)
                survivors += end.survivors
            else:
                waits.append(wait)
        if waits:
            time.sleep(min(waits))
    return survivors
