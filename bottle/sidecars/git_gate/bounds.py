"""What both doors share: how much is under way at once, and how slow a client may be, by whichever protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from bottle.sidecars.git_gate.config import Limits
from bottle.sidecars.git_gate.repository import Refusal

MOVES_BYTES = 4096
"""So much must come of a body in every `idle_s`: what drips in would hold a repository as long as silence may not."""


class Bounds:
    """`pushing`: the pushes that are taken at the same time; more wait."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.requests
        self._under_way = 0
        self.pushing = asyncio.Semaphore(limits.pushes)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request as long as it takes. Raises Refusal where there are too many."""
        if self._under_way >= self._most:
            raise Refusal(f"over {self._most} requests at once")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


class Pace:
    """How long a client may still be waited for: `idle_s` for every MOVES_BYTES, however they are cut in blocks.

    Only waiting counts. While git is too busy to take more, nobody asks the client for any.
    """

    def __init__(self, idle_s: float) -> None:
        self.left_s = idle_s
        self._idle_s = idle_s
        self._came = 0

    def came(self, size: int, after_s: float) -> None:
        """Count a block that was waited for."""
        self._came += size
        self.left_s -= after_s
        if self._came >= MOVES_BYTES:
            self.again()

    def again(self) -> None:
        """Begin anew: it was our turn to speak."""
        self._came, self.left_s = 0, self._idle_s
