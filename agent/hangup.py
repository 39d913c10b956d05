"""`HangUps`: hears of peers who go while nobody reads from their connection, since input waits that nobody takes."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class HangUps:
    """One for all connections of an agent. The kernel tells of a peer's end apart from its data (epoll_ctl(2))."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._gone: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, fd: int, gone: Callable[[], None]) -> None:
        """Call `gone`, once, when the peer has closed its sending half or all of the connection."""
        if fd not in self._gone:
            self._epoll.register(fd, select.EPOLLRDHUP)
        self._gone[fd] = gone

    def forget(self, fd: int) -> None:
        """Watch it no more; it is still open. One that isn't watched is fine."""
        if self._gone.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _look(self) -> None:
        for fd, _ in self._epoll.poll(0):
            gone = self._gone[fd]
            self.forget(fd)
            gone()

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._gone.clear()
