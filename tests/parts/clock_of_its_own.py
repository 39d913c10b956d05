"""`python -m tests.parts.clock_of_its_own --config FILE`: the agent as it is, fit to run under libfaketime.

libfaketime takes a deadline of the monotonic clock (clock_nanosleep(2), which is how Python sleeps) for one of
the wall clock that it moves: `time.sleep` of a millisecond then fails with EINVAL, or goes on for a year. It leaves
select(2) alone.
"""

from __future__ import annotations

import select
import sys
import time
from typing import SupportsIndex

from agent.cli import main


def sleep(seconds: SupportsIndex | float) -> None:
    """As `time.sleep`, by another way into the kernel."""
    select.select([], [], [], float(seconds))


if __name__ == "__main__":
    time.sleep = sleep
    sys.exit(main())
