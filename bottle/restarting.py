"""`bottle restart`: one daemon of a running bundle ended and started again as it was, and its word awaited.

What it was told at first is told again by the supervisor: keys and CA are the same. The policy is the one in force now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bottle.line import Line
from opsexec.errors import OpsError, UsageError

READY_S = 30.0


class Restarting:
    """One bottle's line to its bundle, and what comes back of a restart. `say`: what its operator is told."""

    def __init__(self, identity: str, say: Callable[[str], None]) -> None:
        self.line = Line()
        self._identity = identity
        self._say = say
        self._daemons: set[str] = set()
        self._waiting: dict[str, asyncio.Future[bool]] = {}

    def watch(self, daemons: set[str]) -> None:
        """Note which daemons there are."""
        self._daemons = set(daemons)

    def heard(self, event: dict[str, Any]) -> None:
        """Take what is said of a daemon: that it is ready, or that it ended by itself."""
        name = str(event.get("daemon"))
        waiting = self._waiting.pop(name, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(event.get("event") == "ready")
        elif event.get("event") == "ended":
            self._say(f"{name} ended by itself, and nothing passes it now: bottle restart {self._identity} {name}")

    async def restart(self, name: str) -> None:
        """Restart one; returns when it is ready. Raises UsageError for another name, OpsError when it doesn't come."""
        if name not in self._daemons:
            raise UsageError(f"{name[:80]!r} is no daemon of this bottle", hint=", ".join(sorted(self._daemons)))
        waiting = self._waiting.setdefault(name, asyncio.get_running_loop().create_future())
        self.line.send(f"restart {name}")
        try:
            async with asyncio.timeout(READY_S):
                came = await asyncio.shield(waiting)
        except TimeoutError:
            came = False
            if self._waiting.get(name) is waiting:
                del self._waiting[name]  # from here on nobody waits: its end is told again
        if not came:
            raise OpsError(
                f"{name} didn't come up again", host=self._identity, hint=f"bottle logs {self._identity} {name}"
            )
