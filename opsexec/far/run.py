"""One run as the session on the host holds it, and what its pipes can be asked."""

from __future__ import annotations

import os

from opsexec.far import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    from opsexec.far.drain import Drain
    from opsexec.far.launch import Launch
    from opsexec.far.tree_end import TreeEnd
else:
    from _collections import deque  # the module behind `collections`, which costs 2 ms of a session's start


class Run:
    """One program under way."""

    __slots__ = (
        "bulk", "call", "drain", "ended", "ending", "eof_input", "input", "launch", "left", "outputs", "pid", "ref",
        "status", "stdin", "taken", "terminal",
    )  # fmt: skip

    def __init__(self, ref: int, launch: Launch) -> None:
        self.ref = ref
        self.launch = launch
        self.pid = 0
        self.outputs = {}  # type: dict[int, int]  # fd -> frame kind
        self.stdin = -1
        self.terminal = -1
        self.input = deque()  # type: deque[bytes]
        self.eof_input = False
        self.taken = 0
        self.left = frames.OUTPUT_WINDOW
        self.bulk = False
        self.status = None  # type: int | None
        self.drain: Drain | None = None
        self.ending: TreeEnd | None = None
        self.ended = False
        self.call = None  # type: list[bytes] | None  # an operation's answer, as it comes


def widen(fd: int) -> bool:
    """Give a pipe with much traffic the room of 1 MiB (fcntl(2), F_SETPIPE_SZ); True, as the pipe carries bulk now."""
    import fcntl

    try:
        fcntl.fcntl(fd, 1031, 1 << 20)
    except OSError:
        return True  # the user's pipe memory is used up (pipe-user-pages-soft): it stays as it is
    return True


def write_whole(fd: int, data: bytes) -> None:
    """Write all of it to a blocking file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
