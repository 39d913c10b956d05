"""An internet of one server: a network namespace with nothing but its own loopback, which carries a public address.

Providers' routes lead to public addresses only. Here that is one which nobody outside the namespace can be asked
for, and that no packet could leave to: it is of a block that IANA set apart (192.31.196.0/24, RFC 7535), on `lo`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tests.parts.bottle_running import Bottles
from tests.parts.netns import Namespaces, _ip

ADDRESS = "192.31.196.7"
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def inside(netns: str, work: Callable[[], T]) -> T:
    """Do something in a network namespace: sockets that it opens, and threads that it starts, stay there.

    `netns`: the file that stands for the namespace.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)
            done.append(work())
        except BaseException as error:  # noqa: BLE001 # handed to the caller's own thread
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


@dataclass
class LonelyInternet:
    """`name`: the namespace's."""

    name: str

    def within(self, work: Callable[[], T]) -> T:
        """Do something in there: sockets that it opens, and threads that it starts, stay there."""
        return inside(f"/run/netns/{self.name}", work)


@contextmanager
def lonely_internet() -> Iterator[LonelyInternet]:
    """Make the namespace for the time of the block; needs root."""
    with Namespaces(0) as made:
        _ip("addr", "add", f"{ADDRESS}/32", "dev", "lo", within=made.hub)
        yield LonelyInternet(made.hub)


@dataclass
class BottlesThere(Bottles):
    """Bottles whose launcher, and so whose bundle, has that internet for its network."""

    internet: str = ""

    def argv(self, *words: str) -> list[str]:
        """A `bottle` command in there."""
        return Namespaces.inside(self.internet, super().argv(*words))
