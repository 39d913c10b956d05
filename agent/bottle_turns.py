"""How often a bottle is answered: each answer has a line in the audit, which nobody in a bottle may fill."""

from __future__ import annotations

import time
from collections.abc import Callable

from opsexec.errors import LimitExceeded

PER_MINUTE = 60
WINDOW_S = 60.0


class Turns:
    """One agent's bottles, of which there are as many as sockets for them. `clock`: seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: dict[str, tuple[float, int]] = {}

    def take(self, bottle: str) -> None:
        """Count an answer to a bottle; raises LimitExceeded for one more than PER_MINUTE."""
        now = self._clock()
        begun, count = self._taken.get(bottle, (now, 0))
        if now - begun >= WINDOW_S:
            begun, count = now, 0
        if count >= PER_MINUTE:
            raise LimitExceeded(f"{bottle} was answered {PER_MINUTE} times in this minute", hint="ask again later")
        self._taken[bottle] = (begun, count + 1)
