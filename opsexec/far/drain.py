"""After a program's end: how long output that a child of it still holds open is waited for."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

SILENCE_S = 0.25
"""Seconds of silence after which nothing more is waited for."""
LIMIT_S = 2.0
"""Seconds after the program's end from which a child that goes on talking is no longer listened to."""


class Drain:
    """What stood in the pipes when the program ended is always read; what children add later, for a while."""

    def __init__(self, pipes: Collection[int]) -> None:
        now = time.monotonic()
        self._quiet_at = now + SILENCE_S
        self._end_at = now + LIMIT_S
        self._owed = {fd: waiting(fd) for fd in pipes}

    def heard(self, fd: int, size: int) -> None:
        """So many bytes of a pipe were read."""
        self._owed[fd] = self._owed.get(fd, 0) - size
        self._quiet_at = time.monotonic() + SILENCE_S

    def wait(self, pipes: Collection[int]) -> float:
        """Return for how many more seconds these pipes are worth watching; 0 when they are not."""
        if any(self._owed.get(fd, 0) > 0 for fd in pipes):
            return SILENCE_S
        return max(0.0, min(self._quiet_at, self._end_at) - time.monotonic())


def waiting(fd: int) -> int:
    """Return how many bytes stand in a pipe, or in a terminal."""
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
    except OSError:
        return 0  # a terminal that was hung up
