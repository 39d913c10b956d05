"""The bundle's supervisor, its PID 1: starts the daemons a bottle needs, forwards their output, does as it is told.

Its stdin is the operator's line to the bundle: first one JSON object, `{"daemons": {name: {"argv", "env", "stdin"}}}`,
then a word a line: `reload`, `restart NAME`, `stop`, or `tell NAME TEXT` for a daemon whose spec has `"line": true`:
its stdin stays open, `stdin` is its first line, and TEXT another. The end of stdin is the end of the launcher, and so
of the bundle. Signals say the same: SIGHUP reloads egress, SIGUSR1 restarts pipelock, SIGTERM and SIGINT stop all.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from bottle.sidecars.spawning import Spawned, spawn

MAX_CONFIG = 8 << 20
BLOCK = 1 << 16


def first_line(fd: int) -> tuple[bytes, bytes]:
    """Return the first line, and what was read behind it. Raises EOFError where there is none."""
    data = b""
    while b"\n" not in data:
        block = os.read(fd, BLOCK)
        if not block or len(data) > MAX_CONFIG:
            raise EOFError("no configuration on stdin")
        data += block
    line, _, rest = data.partition(b"\n")
    return line, rest


def begin(daemons: dict[str, dict[str, Any]]) -> dict[str, Spawned]:
    """Start every daemon; one that can't be is left to whoever supervises, who tells why."""
    begun = {}
    for name, spec in daemons.items():
        try:
            begun[name] = spawn(spec["argv"], spec["env"])
        except OSError:
            continue
    return begun


def main() -> int:
    """Read the configuration, start the daemons, then supervise."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT))
    line, rest = first_line(0)
    daemons = json.loads(line)["daemons"]
    begun = begin(daemons)
    # Its import takes as long as all the rest: the daemons import theirs meanwhile.
    import asyncio

    from bottle.sidecars.supervising import supervise

    return asyncio.run(supervise(daemons, begun, rest))


if __name__ == "__main__":
    sys.exit(main())
