"""`StreamDigest`: sha256 of a stream, computed beside the event loop once the stream is large."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

BATCH = 2 << 20
"""Bytes gathered before they are handed to the hashing thread: hashing lets go of the interpreter's lock meanwhile."""

SPARE_PROCESSORS = 3
"""From so many on, one has nothing else to do: the loop and what it hears of (sshd, the agent) keep two busy."""


@cache
def _has_room_beside() -> bool:
    """True where the hashing thread finds a processor."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return here >= SPARE_PROCESSORS


@cache
def _hasher() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "opsexec-digest")


os.register_at_fork(after_in_child=_hasher.cache_clear)  # its thread stays with the parent


class StreamDigest:
    """Takes blocks in order; small streams are hashed at the end, large ones batch by batch in one shared thread.

    Where no processor is left for that thread, passing the interpreter's lock to and fro costs more than it saves (of
    500 MB over SSH on two, a seventh of the time): each block is then hashed as it comes.

    At most two batches wait, so memory stays bounded: a third one waits for the first.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._blocks: list[bytes] = []
        self._size = 0
        self._batch: Future[None] | None = None

    def update(self, data: bytes) -> None:
        """Take a block."""
        if not _has_room_beside():
            self._hash.update(data)
            return
        self._blocks.append(data)
        self._size += len(data)
        if self._size >= BATCH:
            self._settle()
            self._batch = _hasher().submit(self._take_in, self._blocks)
            self._blocks, self._size = [], 0

    def _take_in(self, blocks: list[bytes]) -> None:
        """Hash a batch in the thread. Joined first: joining and hashing each let go of the interpreter's lock, once."""
        self._hash.update(b"".join(blocks))

    def _settle(self) -> None:
        """Wait for the batch under way."""
        if self._batch is not None:
            self._batch.result()
            self._batch = None

    def hexdigest(self) -> str:
        """Return the digest of all blocks so far, as lower-case hex."""
        self._settle()
        for block in self._blocks:
            self._hash.update(block)
        self._blocks, self._size = [], 0
        return self._hash.hexdigest()
