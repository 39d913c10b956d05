"""What both doors of the gate share: how much is under way at once, whoever asked by which protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from bottle.sidecars.git_gate.config import Limits
from bottle.sidecars.git_gate.repository import Refusal


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
