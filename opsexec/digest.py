"""`StreamDigest`: sha256 of a stream, computed beside the event loop once the stream is large."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

BATCH = 2 << 20
"""Bytes gathered before they are handed to the hashing thread: hashing lets go of the interpreter's lock meanwhile."""


@cache
def _hasher() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "opsexec-digest")


class StreamDigest:
    """Takes blocks in order; small streams are hashed at the end, large ones batch by batch in one shared thread.

    At most two batches wait, so memory stays bounded: a third one waits for the first.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._blocks: list[bytes] = []
        self._size = 0
        self._batch: Future[None] | None = None

    def update(self, data: bytes) -> None:
        """Take a block."""
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
