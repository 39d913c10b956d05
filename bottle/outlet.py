"""Writing to this process's own output beside the loop: who doesn't read it keeps the agent waiting, and no bottle."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

Settled = Callable[[OSError | None], None]
"""Called in the thread once a block is written, or couldn't be."""


class Outlet:
    """One descriptor. A write that is given up is left to a thread of its own, for which nobody waits at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._work: SimpleQueue[tuple[bytes, Settled]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def write(self, data: bytes) -> None:
        """Write a block whole, behind those before it; raises OSError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settled(failed: OSError | None) -> None:
            # A loop that has been closed meanwhile takes nothing: nobody waits there.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, done, failed)

        self.put(data, settled)
        await done

    def put(self, data: bytes, settled: Settled) -> None:
        """Have a block written behind those before it, and go on at once; without a thread to be had, once it is."""
        if self._thread is None:
            # asyncio's own threads are waited for when the loop ends, however long that takes.
            thread = threading.Thread(target=self._write, name=f"output {self._fd}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._write_one(data, settled)
                return
            self._thread = thread
        self._work.put((data, settled))

    def finish(self, data: bytes, within_s: float) -> bool:
        """Have a block written behind those before it, and wait for that, within bounds and without a loop.

        Returns False where that took longer: it may still be written while this process lasts. Raises nothing.
        """
        over = threading.Event()
        self.put(data, lambda _: over.set())
        return over.wait(within_s)

    def _write(self) -> None:
        while True:
            self._write_one(*self._work.get())

    def _write_one(self, data: bytes, settled: Settled) -> None:
        failed: OSError | None = None
        try:
            _write_all(self._fd, data)
        except OSError as error:
            failed = error
        settled(failed)


def _write_all(fd: int, data: bytes) -> None:
    # Not through Python's own buffer: its lock would be missed when the interpreter ends with a write under way.
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else set the terminal so
            select.select((), (fd,), ())


def _settle(done: asyncio.Future[None], failed: OSError | None) -> None:
    if done.done():
        return
    if failed is None:
        done.set_result(None)
    else:
        done.set_exception(failed)
