"""Where state is kept when no place is named."""

from __future__ import annotations

import os
from pathlib import Path

from opsexec.errors import UsageError


def state_home() -> Path:
    """Return the XDG state directory, `~/.local/state` where none is set. Raises UsageError for a user without a home.

    The XDG Base Directory Specification: a relative path there is to be ignored.
    """
    for place in (os.environ.get("XDG_STATE_HOME", ""), os.path.expanduser("~/.local/state")):
        if place.startswith("/"):
            return Path(place)
    home = os.environ.get("HOME")
    if home:
        raise UsageError(
            f"HOME is {home[:80]!r}, which is no absolute path",
            hint="set HOME to one that begins with /, or XDG_STATE_HOME",
        )
    raise UsageError(
        f"the user {os.getuid()} has no home directory to keep records in", hint="set HOME, or XDG_STATE_HOME"
    )
