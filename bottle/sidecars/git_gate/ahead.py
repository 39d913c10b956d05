"""A step begun ahead of its push: it gets ready while git still receives, and does nothing before it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from opsexec.errors import OpsError
from opsexec.executor import Executor, RunOutput
from opsexec.steps.git import GitForward, GitScan

LEAVE_S = 3.0


class Ahead:
    """One step under way. Exactly one of `go` and `leave` ends it."""

    def __init__(self, ex: Executor, step: GitScan | GitForward) -> None:
        self.step = step
        self._word: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(ex.run_streaming(step, stdin=self._input()))

    async def _input(self) -> AsyncIterator[bytes]:
        word = await self._word
        if word:
            yield word

    @property
    def waiting(self) -> bool:
        """True while it can still be told to go."""
        return not self._word.done() and not self._task.done()

    async def go(self, quarantine: str, updates: tuple[str, ...]) -> RunOutput:
        """Tell it of its push, and return what came of that. Raises what the step raises; cancelled, it is ended."""
        self._word.set_result(json.dumps({"quarantine": quarantine, "updates": updates}).encode() + b"\n")
        return await self._task

    async def leave(self) -> None:
        """End it without a push; by force where it doesn't leave by itself."""
        if not self._word.done():
            self._word.set_result(b"")
        await asyncio.wait([self._task], timeout=LEAVE_S)
        self._task.cancel()
        try:
            await self._task
        except (OpsError, asyncio.CancelledError):
            pass  # it was to do nothing, and how it ended is in the audit
