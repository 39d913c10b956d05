"""`Observation`: an Observe or Events step as an async iterator of samples."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from opsexec.sinks import LineSink

if TYPE_CHECKING:
    from opsexec.executor import Executor, RunOutput, Stream
    from opsexec.steps.events import Events
    from opsexec.steps.observe import Observe

WAITING = 16
"""Samples that may wait to be read; after that the host is asked for no more."""


class Observation:
    """Implements EventStream: each item is one sample, plain JSON data. Starts with the first item asked for.

    Iterating raises what the step raises: CapabilityDenied, HostUnreachable, ConnectionLost, StepTimeout.
    """

    def __init__(self, executor: Executor, step: Observe | Events) -> None:
        self._executor = executor
        self._step = step
        self._samples: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(WAITING)
        self._run: asyncio.Task[RunOutput] | None = None
        self._over = False

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        """Return the next sample."""
        if self._over:
            raise StopAsyncIteration
        if self._run is None:
            self._run = asyncio.create_task(self._follow())
        sample = await self._samples.get()
        if sample is not None:
            self._room.release()
            return sample
        self._over = True
        await self._run
        raise StopAsyncIteration

    async def _follow(self) -> RunOutput:
        try:
            return await self._executor.run(self._step, LineSink(self._take))
        finally:
            self._samples.put_nowait(None)

    async def _take(self, stream: Stream, line: bytes) -> None:
        await self._room.acquire()
        self._samples.put_nowait(json.loads(line))

    async def aclose(self) -> None:
        """Stop observing. An error that came after the last item asked for has nobody left to hear it."""
        self._over = True
        if self._run is not None:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)
