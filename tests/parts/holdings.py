"""What this process holds: file descriptors, tasks and children, so that a test can say that nothing was left."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from tests.parts.process_tree import descendants


def open_files() -> dict[int, str]:
    """What each file descriptor of this process leads to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


@dataclass(frozen=True)
class Holdings:
    """A moment's file descriptors, tasks and child processes."""

    files: dict[int, str]
    tasks: frozenset[asyncio.Task[object]]
    children: frozenset[int]

    @classmethod
    def now(cls) -> Holdings:
        """Look."""
        children = frozenset(process.pid for process in descendants(os.getpid()))
        return cls(open_files(), frozenset(asyncio.all_tasks()), children)

    def left_since(self) -> list[str]:
        """What there is now and was not then, in words."""
        now = Holdings.now()
        files = [f"fd {fd} -> {to}" for fd, to in now.files.items() if self.files.get(fd) != to]
        tasks = [repr(task) for task in now.tasks - self.tasks]
        children = [f"process {pid}" for pid in now.children - self.children]
        return [*files, *tasks, *children]
