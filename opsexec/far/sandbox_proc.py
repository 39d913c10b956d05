"""What of this kernel's /proc a sandbox covers: found on the host, since a list knows only the kernels it was made on.

Below /proc, root's files are the program's own where root started it: outside it is that user, whatever its number
inside. Nearly all of them ask for no capability beside that (docs/decisions/0040).
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = frozenset(("self", "thread-self", "sys"))
"""The reader's own, and /proc/sys, which is covered in any case."""
MAX_HIDDEN = 32
"""Places in one directory of /proc that are covered one by one; with more of them all of it is covered."""
DEEPEST = 6


def covered(proc: str = "/proc") -> list[str]:
    """Return bubblewrap's words that cover what this process may change below /proc, or read as few others may.

    What may be changed becomes read-only. What isn't everybody's to read can't be read.
    """
    words = []  # type: list[str]
    for name in sorted(os.listdir(proc)):
        path = f"{proc}/{name}"
        if name.isdigit() or name in OWN or os.path.islink(path):
            continue
        writable, hidden = False, []  # type: bool, list[str]
        for at, mode in _below(path, 0):
            if not mode & 0o004 and os.access(at, os.R_OK):
                hidden += _unreadable(at, mode)
            elif mode & 0o222 and os.access(at, os.W_OK):
                writable = True
        if len(hidden) > 3 * MAX_HIDDEN:
            writable, hidden = False, ["--tmpfs", path, "--remount-ro", path]
        words += ["--ro-bind", path, path] * writable + hidden
    return words


def _unreadable(path: str, mode: int) -> list[str]:
    if stat.S_ISDIR(mode):
        return ["--tmpfs", path, "--remount-ro", path]
    return ["--ro-bind", "/dev/null", path]


def _below(path: str, depth: int) -> Iterator[tuple[str, int]]:
    """Yield a path and, where others may look into it, what is below it, each with its mode. Links lead elsewhere."""
    try:
        mode = os.lstat(path).st_mode
        names = sorted(os.listdir(path)) if stat.S_ISDIR(mode) and mode & 0o004 else []
    except OSError:  # it went, or it is shut to us: so it will be inside
        return
    if stat.S_ISLNK(mode):
        return
    if depth > DEEPEST:
        mode &= ~0o004
    yield path, mode
    for name in names if depth <= DEEPEST else ():
        yield from _below(f"{path}/{name}", depth + 1)
