"""The agent's own place in the queue for a processor: ahead of what it starts, which keeps the usual one.

Half of a short step's time is the agent waiting for a processor that programs hold, its own steps' or a runaway's
(docs/decisions/0077). On Linux alone: elsewhere a priority is the whole process's, and what it starts inherits it.
"""

from __future__ import annotations

import os
import sys


def go_ahead(nice: int) -> int:
    """Give this thread a nice value (setpriority(2)) that nothing it starts inherits; returns the one it has then.

    One that was given from outside stays, unless it could be inherited. Where it isn't this process's to have (a plain
    user's, a sandbox's), everything stays as usual: 0.
    """
    if sys.platform != "linux":
        return 0
    held = os.getpriority(os.PRIO_PROCESS, 0)
    if held > 0 or (held == 0 and nice >= 0):
        return held
    if not _inherited_by_nobody():
        if held < 0:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        return 0
    if held == 0:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except PermissionError:
            return 0
    return os.getpriority(os.PRIO_PROCESS, 0)


def _inherited_by_nobody() -> bool:
    """Make sure of sched(7)'s reset-on-fork: threads and processes made from here on begin with a nice value of 0."""
    if os.sched_getscheduler(0) & os.SCHED_RESET_ON_FORK:
        return True
    try:
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except PermissionError:  # systemd's RestrictRealtime= takes the flag for a policy; the unit sets it itself
        return False
    return True
