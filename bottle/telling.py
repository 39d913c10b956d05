"""What a launcher tells its operator while a bottle is up, beside the loop: a terminal may stand still."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bottle.outlet import Outlet

LAST_WAIT_S = 5.0
"""How long the end waits for a reader who doesn't read."""


class Telling:
    """Takes lines at once, and writes them in their order as they are read; one that nobody can be told is left out."""

    def __init__(self, fd: int) -> None:
        self._outlet = Outlet(fd)

    def __call__(self, line: str) -> None:
        """Tell a line."""
        self._outlet.put(f"bottle: {line}\n".encode("utf-8", "backslashreplace"), _told)

    def wait(self, within_s: float) -> bool:
        """Wait until all is written, `within_s` seconds at most; True when it is."""
        return self._outlet.finish(b"", within_s)


def _told(failed: OSError | None) -> None:
    """Nobody is there any more (the terminal is gone, its disk full): the exit status says how it went."""


@contextmanager
def telling() -> Iterator[Telling]:
    """What tells on stderr; at the end what was told last is waited for."""
    tell = Telling(sys.stderr.fileno())
    try:
        yield tell
    finally:
        tell.wait(LAST_WAIT_S)
