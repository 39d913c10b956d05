"""Bytes between the event loop and the thread that talks to an engine, each way at the pace of the slower side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

from opsexec.errors import OpsError
from opsexec.recorder import Recorder

AHEAD = 4
"""Blocks that may wait on their way to the thread."""


class Given:
    """An async stream that a thread reads like a file; `pump` runs on the loop meanwhile."""

    def __init__(self, stream: AsyncIterator[bytes], max_bytes: int, too_much: Callable[[], OpsError]) -> None:
        self._stream = stream
        self._left = max_bytes
        self._too_much = too_much
        self._blocks: SimpleQueue[bytes | BaseException] = SimpleQueue()
        self._room = asyncio.Semaphore(AHEAD)
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._ended = False

    async def pump(self) -> None:
        """Hand the stream over; whatever ends it is told to the thread."""
        try:
            async for block in self._stream:
                if not block:
                    continue
                await self._room.acquire()
                self._blocks.put(block)
            self._blocks.put(b"")
        except BaseException as error:  # a cancellation as well: the thread would wait for ever
            self._blocks.put(error)
            raise

    def stop(self) -> None:
        """Let the thread go."""
        self._blocks.put(OSError("the step is over"))

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes; none at the end. In the thread."""
        if not self._rest and not self._ended:
            block = self._blocks.get()
            if isinstance(block, BaseException):
                raise OSError("the input broke off") from block
            with suppress(RuntimeError):  # the loop is gone
                self._loop.call_soon_threadsafe(self._room.release)
            self._ended = not block
            self._left -= len(block)
            if self._left < 0:
                raise self._too_much()
            self._rest = block
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class Output:
    """A recorder that a thread feeds, waiting while the sink is behind."""

    def __init__(self, recorder: Recorder, require: Callable[[], None]) -> None:
        self._recorder = recorder
        self._require = require
        self._loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        self._waiting: Future[Any] | None = None
        recorder.on_drain = recorder.on_failure = self._drained.set
        self._stopped = False

    def give(self, stream: int, data: bytes) -> None:
        """Feed the recorder; raises what `require` does, and OSError once the step is over. In the thread."""
        if self._stopped:
            raise OSError("the step is over")
        self._waiting = asyncio.run_coroutine_threadsafe(self._feed(stream, data), self._loop)
        try:
            self._waiting.result()
        except CancelledError as error:
            raise OSError("the step is over") from error

    async def _feed(self, stream: int, data: bytes) -> None:
        self._drained.clear()
        ready = self._recorder.feed(stream, data)
        self._require()
        if self._recorder.failure is not None:
            raise OSError("nobody takes the output")
        if not ready:
            await self._drained.wait()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Around what feeds it: where the sink raised, that is the error, not what it broke."""
        try:
            yield
        except OpsError:
            if self._recorder.failure is not None:
                raise self._recorder.failure from None
            raise
        finally:
            self.stop()

    def stop(self) -> None:
        """Let the thread go."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
        self._recorder.on_drain = self._recorder.on_failure = None
