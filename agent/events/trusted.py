"""Sockets that may be believed: what they say goes to whoever follows this host."""

from __future__ import annotations

import os
import stat


def require_trusted(path: str) -> None:
    """Raise OSError unless a socket stands there that is root's or this user's own."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        status = os.stat(path)
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"{path} is not a socket of root's or this user's own")
