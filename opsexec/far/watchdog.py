"""The process that outlives a killed caller: told of each run on its stdin, it ends what is left when that closes."""

from __future__ import annotations

import os
import signal
import sys

from opsexec.far.frames import GRACE_S
from opsexec.far.tree_end import end_now


def main() -> None:
    """Read `+RUN PID` and `-RUN` lines until the caller is gone, then end the runs that are still open."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    runs = {}
    for line in sys.stdin:
        if line.startswith("+"):
            run, pid = line[1:].split()
            runs[run] = int(pid)
        else:
            runs.pop(line[1:].strip(), None)
    end_now(list(runs.items()), GRACE_S)
    os._exit(0)


if __name__ == "__main__":
    main()
