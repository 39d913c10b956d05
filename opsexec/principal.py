"""Who is asking, as the caller's own audit names it."""

from __future__ import annotations

import os
import pwd
from functools import cache


@cache
def local_principal() -> str:
    """Return `unix:<user>` of this process's real user."""
    try:
        return f"unix:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"unix:{os.getuid()}"
