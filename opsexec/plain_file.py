"""Reading one file by a name at which anything may stand: a directory, a fifo, a device, a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotPlain(Exception):
    """Something else than a regular file stands there."""


def read_plain(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return a regular file's bytes, one more than `max_bytes` at most, and what fstat says of it.

    Never follows a link at the name's end, never waits for a fifo's writer. Raises NotPlain, OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):  # before `open`, which raises for a directory and leaves the descriptor
            raise NotPlain(f"{path} is not a regular file")
        with open(fd, "rb", closefd=False) as file:
            return file.read(max_bytes + 1), info
    finally:
        os.close(fd)
