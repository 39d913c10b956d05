"""Starting one local process by vfork(2) with what stands behind `subprocess.Popen`: half of what posix_spawn takes.

glibc's posix_spawn takes nine calls by ctypes, and each copies its words. CPython's own starter, which `subprocess` and
`multiprocessing` use, takes one; it isn't documented, so it is used where its arguments are known
(docs/decisions/0088), and there is another way everywhere else.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from signal import SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signal import SIG_IGN, getsignal
else:
    from _signal import SIG_IGN, getsignal  # what stands behind `signal`, which makes an enum's member of each answer

KNOWN = ((3, 11), (3, 12), (3, 13))
"""The versions of CPython whose `_posixsubprocess.fork_exec` takes the arguments given here, in this order."""
STAY_IGNORED = tuple(map(int, (SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGCHLD)))
"""Signals that it leaves ignored in the program where they are ignored here; those that Python ignores it restores."""


class VforkExec:
    """Starts programs; any thread may. What fails in a child is written to memory that both see: reading it from a pipe
    would hand the interpreter to another thread at every start, and wait to have it back.
    """

    def __init__(self, fork_exec: Callable[..., Any]) -> None:
        self._fork_exec = fork_exec
        self._taken = threading.Lock()
        low = os.memfd_create("opsexec-start", os.MFD_CLOEXEC)
        try:
            os.ftruncate(low, mmap.PAGESIZE)
            self._told = mmap.mmap(low, mmap.PAGESIZE, prot=mmap.PROT_READ)
            self._telling = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(low)

    def start(
        self, program: bytes, words: Sequence[bytes], settings: Sequence[bytes], cwd: bytes, streams: Sequence[int]
    ) -> int:
        """Start a program in a session of its own with these three descriptors, all above 2, and no others.

        `words`: its argv; `settings`: its environment as `NAME=value`; none may hold a NUL. Returns its process id, or
        0 where it could not be started this way, and then nothing was. The interpreter stands still until the program
        has been entered: not for one on a file system that may hang.
        """
        if SIG_IGN in map(getsignal, STAY_IGNORED):
            return 0
        if not self._taken.acquire(blocking=False):
            return 0  # another thread's start is under way: waiting for its end takes longer than another way
        try:
            pid = self._start(program, words, settings, cwd, streams)
            if not self._told[0]:  # by vfork the child has become its program by now, or is gone
                return pid
            os.pwrite(self._telling, bytes(mmap.PAGESIZE), 0)
            os.lseek(self._telling, 0, os.SEEK_SET)
        finally:
            self._taken.release()
        with suppress(ChildProcessError):  # another part of this process took its status
            os.waitpid(pid, 0)
        return 0

    def _start(
        self, program: bytes, words: Sequence[bytes], settings: Sequence[bytes], cwd: bytes, streams: Sequence[int]
    ) -> int:
        """Give the arguments in their order. The child has no end of a pipe to close: stderr is closed instead."""
        pid: int = self._fork_exec(
            words, (program,), True, (self._telling,), cwd, settings,
            streams[0], -1, -1, streams[1], -1, streams[2], 2, self._telling,
            True, True, -1, None, None, None, -1, None, True,
        )  # fmt: skip
        return pid


@cache
def vfork_exec() -> VforkExec | None:
    """Return this process's starter; None where the arguments of CPython's own aren't known."""
    if sys.platform != "linux" or sys.implementation.name != "cpython" or sys.version_info[:2] not in KNOWN:
        return None
    from _posixsubprocess import fork_exec

    try:
        return VforkExec(fork_exec)
    except OSError:  # no memory or descriptors left, or a sandbox without memfd
        return None


os.register_at_fork(after_in_child=vfork_exec.cache_clear)  # the memory is its parent's, the lock may be held for ever
