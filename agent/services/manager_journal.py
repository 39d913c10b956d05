"""What a service manager itself says of a unit in `journalctl -o json`: a service can't speak for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

EXITED = re.compile(r"Main process exited, code=(exited|killed|dumped), status=([0-9]{1,3})(?:/|$)")
"""What systemd says of a main process's end that is no success; of a clean one it says nothing (systemd 239 on)."""


def told(journal: str) -> Iterator[dict[str, Any]]:
    """Yield the manager's own entries, oldest first; what is no entry is left out.

    Fields that begin with _ are journald's own word on who spoke: a service can write all the others itself.
    """
    for line in journal.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("MESSAGE"), str):
            continue
        if entry.get("_PID") == "1" or entry.get("_SYSTEMD_USER_UNIT") == "init.scope":
            yield entry


def last_bad_end(journal: str) -> str | None:
    """Return how the main process ended badly last, like "status 3" or "signal 9"; None when it isn't told of."""
    found = None
    for entry in told(journal):
        match = EXITED.match(entry["MESSAGE"].rpartition(": ")[2])
        if match:
            found = f"{'status' if match[1] == 'exited' else 'signal'} {match[2]}"
    return found
