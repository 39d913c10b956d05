"""Processes as /proc shows them: who descends from whom, and who carries a marker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    ppid: int
    comm: str
    state: str


def process_table() -> list[Process]:
    """Every process that can be seen, zombies included."""
    table = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path("/proc", name, "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # comm may hold spaces and parentheses: proc(5) says that the last ')' ends it.
        head, _, tail = stat.rpartition(")")
        fields = tail.split()
        table.append(Process(int(name), int(fields[1]), head.partition("(")[2], fields[0]))
    return table


def descendants(root: int) -> list[Process]:
    """Children of `root`, their children, and so on; `root` itself is not among them."""
    children: dict[int, list[Process]] = {}
    for process in process_table():
        children.setdefault(process.ppid, []).append(process)
    found: list[Process] = []
    pending = [root]
    while pending:
        for process in children.get(pending.pop(), []):
            found.append(process)
            pending.append(process.pid)
    return found


def alive(pid: int) -> bool:
    """Whether `pid` exists and is more than a zombie waiting for its parent."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def processes_with_argument(marker: str) -> list[int]:
    """Pids whose argv has a word equal to `marker` (zombies have no argv); never this process."""
    wanted = marker.encode()
    found = []
    for process in process_table():
        try:
            argv = Path("/proc", str(process.pid), "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if wanted in argv and process.pid != os.getpid():
            found.append(process.pid)
    return found
