"""`Tape`: a terminal's recording on the host, with a hash chain through it. What it can't keep, nobody gets to see."""

from __future__ import annotations

import asyncio
import os

from opsexec.errors import RecordingFailed
from opsexec.recording import Recording
from opsexec.recording_chain import Anchor, Chain

LINK_BYTES = 64 << 20
"""Bytes of recording after which a link is made without waiting for the clock."""


class Tape(Recording):
    """One recording as it is made. `chain_to` once before anything else is recorded, and `max_bytes`: its quota."""

    chain: Chain
    max_bytes: int
    size = 0

    def chain_to(self, run: str, max_bytes: int) -> None:
        """Begin the chain over what was written so far: the header."""
        self.chain = Chain(run)
        header = os.pread(self._fd, 1 << 20, 0)
        self.size = len(header)
        self.max_bytes = max_bytes
        self.chain.add(header)

    @property
    def due(self) -> bool:
        """True when a link ought not to wait."""
        return self.chain.pending >= LINK_BYTES

    def _put(self, line: bytes | bytearray) -> None:
        if not self.size:
            super()._put(line)
            return
        if self._fd < 0:
            raise self._failed("it is closed")
        if self.size + len(line) > self.max_bytes:
            raise self._failed(f"it is over its limit of {self.max_bytes} bytes")
        super()._put(line)
        self.size += len(line)
        self.chain.add(line)

    async def link(self, *, final: bool = False) -> Anchor:
        """Make a link over all that is recorded, on the disk before it is told of; raises RecordingFailed.

        The file must still be the one that was made, under its name and as long as what was written to it.
        """
        self._require_ours()
        line = self.chain.next_link()
        super()._put(line)
        self.size += len(line)
        anchor = Anchor(bytes=self.size, link=self.chain.links, head=self.chain.head, final=final)
        try:
            await asyncio.to_thread(os.fdatasync, self._fd)
        except OSError as error:
            raise self._failed(os.strerror(error.errno or 0)) from error
        return anchor

    def _require_ours(self) -> None:
        if self._fd < 0:
            raise self._failed("it is closed")
        held = os.fstat(self._fd)
        try:
            named = os.lstat(self._path)
        except OSError as error:
            raise self._failed(f"its file has gone ({os.strerror(error.errno or 0)})") from error
        if (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino):
            raise self._failed("another file stands in its place")
        if held.st_size != self.size:
            raise self._failed(f"{self.size} bytes were written, and it has {held.st_size}")

    def _failed(self, reason: str) -> RecordingFailed:
        text = f"the terminal's recording can't be kept on the host: {reason}"
        return RecordingFailed(text, hint="no recording, no terminal: make room in the agent's state_dir/recordings")
