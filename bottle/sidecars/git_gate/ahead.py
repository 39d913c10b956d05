"""Steps that a push finds begun: getting ready while git still receives, or done with their work and held for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from opsexec.errors import OpsError
from opsexec.executor import Executor, RunOutput, Stream
from opsexec.steps.git import GitFetch, GitForward, GitScan

LEAVE_S = 3.0
MAX_ANSWER = 1 << 16


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
        await _ended(self._task)


class Held:
    """A fetch that keeps its login at the upstream open for a push. Exactly one `leave` ends it."""

    def __init__(self, ex: Executor, step: GitFetch) -> None:
        self._leaving = asyncio.Event()
        self._answer = b""
        self._said: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(ex.run_streaming(step, self, stdin=self._input()))

    async def _input(self) -> AsyncIterator[bytes]:
        await self._leaving.wait()
        for each in list[bytes]():
            yield each

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take what the step says: its answer, once it is refreshed. One that says no ends the step, which raises."""
        if stream == "stdout":
            self._answer += data[:MAX_ANSWER]
        if not self._said.done() and _says_yes(self._answer):
            self._said.set_result(None)

    async def refreshed(self) -> None:
        """Wait until it is. Raises what the step raises."""
        both: tuple[asyncio.Future[Any], ...] = (self._said, self._task)
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    @property
    def holding(self) -> bool:
        """True while its login may be used."""
        return not self._leaving.is_set() and not self._task.done()

    async def leave(self) -> None:
        """Close the login; by force where that takes too long."""
        self._leaving.set()
        await _ended(self._task)


def _says_yes(answer: bytes) -> bool:
    """True for a whole answer that is one; a part of one isn't."""
    try:
        found = json.loads(answer)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("ok") is True


async def _ended(task: asyncio.Task[RunOutput]) -> None:
    """Wait for a step that is to end, and end it where it doesn't."""
    await asyncio.wait([task], timeout=LEAVE_S)
    task.cancel()
    try:
        await task
    except (OpsError, asyncio.CancelledError):
        pass  # it was to do nothing more, and how it ended is in the audit
