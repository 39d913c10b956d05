"""Walking within one tree by directory descriptors: no link below the top is ever followed."""

from __future__ import annotations

import os

from opsexec.far.message import FarError
from opsexec.far.tree_entry import MAX_DEPTH
from opsexec.far.walk import SEARCH

LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directories:
    """The directories of a tree, opened on the way to the one that is needed and kept while they lead to the next.

    `top` is an open directory, which this takes over.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self._names = []  # type: list[bytes]
        self._fds = []  # type: list[int]

    def enter(self, path: bytes) -> int:
        """Return an open descriptor of a directory, good until the next call; empty and `.` mean the top.

        Raises OSError: ELOOP or ENOTDIR when anything on the way is no directory.
        """
        names = [] if path in (b"", b".") else path.split(b"/")
        if len(names) > MAX_DEPTH:
            raise FarError("too_deep", f"more than {MAX_DEPTH} directories above one another")
        shared = 0
        for ours, theirs in zip(self._names, names):
            if ours != theirs:
                break
            shared += 1
        self._leave(shared)
        for name in names[shared:]:
            self._fds.append(os.open(name, SEARCH, dir_fd=self._fds[-1] if self._fds else self.top))
            self._names.append(name)
        return self._fds[-1] if self._fds else self.top

    def names(self, path: bytes) -> list[tuple[bytes, os.stat_result]]:
        """Return what is in a directory, sorted by name, with metadata; what vanishes meanwhile is left out."""
        fd = os.open(b".", LIST_FLAGS, dir_fd=self.enter(path))
        try:
            found = []
            for name in os.listdir(fd):
                try:
                    found.append((os.fsencode(name), os.stat(name, dir_fd=fd, follow_symlinks=False)))
                except FileNotFoundError:
                    continue
        finally:
            os.close(fd)
        found.sort()
        return found

    def forget(self) -> None:
        """Let go of all but the top: what was walked through may have been removed."""
        self._leave(0)

    def close(self) -> None:
        """Let go of the top too."""
        self._leave(0)
        if self.top >= 0:
            os.close(self.top)
            self.top = -1

    def _leave(self, keep: int) -> None:
        while len(self._fds) > keep:
            os.close(self._fds.pop())
            self._names.pop()
