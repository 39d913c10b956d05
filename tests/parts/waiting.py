"""Waiting for an event, with a bound: what tests do instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
STEP_S = 0.01


async def eventually(look: Callable[[], T], *, within_s: float, what: str) -> T:
    """Return the first true value of `look()`; raises TimeoutError that says `what` never happened."""
    end = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(STEP_S)


def eventually_now(look: Callable[[], T], *, within_s: float, what: str) -> T:
    """As `eventually`, for tests without an event loop."""
    end = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(STEP_S)
