"""Searches that take long are done beside the event loop: events of other requests don't wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

ASIDE = 32 << 10
"""What has so many bytes is searched in a thread; less is done sooner than handed over."""


class Aside:
    """Two threads: this machine's other work goes on beside searches as well."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, "search")

    async def do(self, size: int, look: Callable[[], T]) -> T:
        """Return what `look`, which searches `size` bytes, returns or raises."""
        if size < ASIDE:
            return look()
        return await asyncio.get_running_loop().run_in_executor(self._threads, look)
