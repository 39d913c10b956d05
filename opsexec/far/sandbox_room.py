"""How much the writable trees of a sandbox hold: the bound on a home that lies on the host's own disk.

The kernel has no quota that every file system and a plain user could use, so this looks, often and cheaply: as long as
the file system as a whole has grown by less than the limit since the start, nothing of the sandbox's can be over it,
and nothing is counted. Only then is the tree walked, and what the sandbox's processes hold open of deleted files added;
and once a minute in any case, as others may have made room meanwhile. What is still unseen (a deleted file that is only
mapped) is seen by the room that is left: below the floor the sandbox ends, so that the host keeps working.
"""

from __future__ import annotations

import os
import stat
import time

FLOOR_BYTES = 1 << 30
FLOOR_SHARE = 0.03
FLOOR_FILES = 10_000
"""What is left to the host of a file system that this sandbox fills: bytes (or this share, if that is less), inodes."""
DEEPEST = 512
"""Directories in directories that a walk goes into; deeper trees count as what can't be looked into."""
WALK_EVERY_S = 60.0
COUNT_EVERY_S = 10.0
"""The same on a file system that doesn't count its inodes, for a tree whose files are to be counted."""
PAUSE = 4.0
"""After a walk of T seconds there is no other for this many times T."""


class Room:
    """One tree and its bounds; 0: without that bound."""

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self._path = path
        self._limits = (max_bytes, max_files)
        self._device = os.stat(path).st_dev
        had = self._count() if max_bytes or max_files else (0, 0, "")
        self._before = self._used()
        self._margin = (max_bytes - had[0], max_files - had[1])
        self._walked = time.monotonic()
        self._next_walk = 0.0

    def over(self, leader: int = 0) -> str | None:
        """Return what is over its bound, as words for a person; None while nothing is.

        `leader`: the process that with all below it may hold deleted files open.
        """
        max_bytes, max_files = self._limits
        used = self._used()
        grown = (used[0] - self._before[0], used[1] - self._before[1])
        within = (not max_bytes or grown[0] < self._margin[0]) and (not max_files or grown[1] < self._margin[1])
        began = time.monotonic()
        due = self._walked + (WALK_EVERY_S if used[2] or not max_files else COUNT_EVERY_S)
        if (within and began < due) or began < self._next_walk:
            return self._no_room(grown)
        found, files, unseen = self._count()
        if max_bytes:
            found += held_open(leader, self._device)
        self._walked = time.monotonic()
        self._next_walk = self._walked + PAUSE * (self._walked - began)
        if max_bytes and found > max_bytes:
            return f"its files are over {max_bytes} bytes"
        if max_files and files > max_files:
            return f"it has more than {max_files} files"
        if unseen and not within:
            return f"{unseen!r} can't be looked into, and the disk has filled by more than the limit"
        # Somebody else fills the disk: from here on, only what comes next is looked at.
        self._before = used
        self._margin = (max_bytes - found, max_files - files)
        return self._no_room(grown)

    def _used(self) -> tuple[int, int, int]:
        """Return bytes and inodes in use on the whole file system, and its inodes at all: 0 where it counts none."""
        seen = os.statvfs(self._path)
        return (seen.f_blocks - seen.f_bfree) * seen.f_frsize, seen.f_files - seen.f_ffree, seen.f_files

    def _no_room(self, grown: tuple[int, int]) -> str | None:
        seen = os.statvfs(self._path)
        floor = min(FLOOR_BYTES, int(seen.f_blocks * seen.f_frsize * FLOOR_SHARE))
        if self._limits[0] and seen.f_bavail * seen.f_frsize < floor and grown[0] > floor:
            return "the disk under its files is almost full"
        if self._limits[1] and 0 < seen.f_favail < FLOOR_FILES and grown[1] > FLOOR_FILES:
            return "the disk under its files has almost no inodes left"
        return None

    def _count(self) -> tuple[int, int, str]:
        """Return the bytes on disk and the files below, and a directory that couldn't be looked into.

        By descriptors: no name in the tree, and no link put there meanwhile, leads out of it or hides a part.
        It stops where a bound is passed.
        """
        total = files = 0
        unseen = ""
        twice = set()  # type: set[int]
        levels = [_Level(_enter(self._path, None), "")]
        try:
            while levels:
                here = levels[-1]
                entry = next(here.entries, None)
                if entry is None:
                    levels.pop().close()
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:  # gone meanwhile
                    continue
                files += 1
                directory = stat.S_ISDIR(found.st_mode)
                if directory or found.st_nlink == 1 or found.st_ino not in twice:
                    total += found.st_blocks * 512
                if found.st_nlink > 1 and not directory:
                    twice.add(found.st_ino)
                if 0 < self._limits[0] < total or 0 < self._limits[1] < files:
                    break
                if directory:
                    path = f"{here.path}/{entry.name}"
                    try:
                        if len(levels) > DEEPEST:
                            raise OSError
                        levels.append(_Level(_enter(entry.name, here.fd), path))
                    except FileNotFoundError:  # gone meanwhile
                        continue
                    except OSError:
                        unseen = path[:200]
        finally:
            for level in levels:
                level.close()
        return total, files, unseen


def held_open(leader: int, device: int) -> int:
    """Return the bytes of deleted files on a device that a process and all below it hold open."""
    total = 0
    seen = set()  # type: set[int]
    pending = [leader] if leader else []
    while pending:
        pid = pending.pop()
        for name in _names(f"/proc/{pid}/task"):
            pending += [int(child) for child in _read(f"/proc/{pid}/task/{name}/children").split()]
        for name in _names(f"/proc/{pid}/fd"):
            try:
                found = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:  # closed meanwhile
                continue
            if found.st_nlink == 0 and found.st_dev == device and found.st_ino not in seen:
                seen.add(found.st_ino)
                total += found.st_blocks * 512
    return total


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:  # it ended
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:  # it ended
        return ""


class _Level:
    """A directory that is being read."""

    __slots__ = ("entries", "fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.entries = os.scandir(fd)

    def close(self) -> None:
        self.entries.close()
        os.close(self.fd)


def _enter(name: str, directory: int | None) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
