"""Starting one program on three pipes, without asyncio: a supervisor's daemons begin before it has imported it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Spawned(NamedTuple):
    """A process that was started, and our ends of its pipes."""

    pid: int
    stdin: int
    stdout: int
    stderr: int


def spawn(argv: Sequence[str], env: Mapping[str, str]) -> Spawned:
    """Start a program as the leader of a group, with no other descriptor than its three. Raises OSError."""
    (stdin, into), (out, stdout), (err, stderr) = [os.pipe() for _ in range(3)]
    theirs = (stdin, stdout, stderr)
    actions = [(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate(theirs)]
    try:
        pid = os.posix_spawnp(
            argv[0], list(argv), dict(env), file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=DEFAULTS
        )
    except OSError:
        for fd in (into, out, err):
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return Spawned(pid, into, out, err)
