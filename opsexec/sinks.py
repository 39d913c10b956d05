"""Sinks: where a run's output goes. Any object with `async write(stream, data)` is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import BinaryIO

from opsexec.executor import Stream


class CollectSink:
    """Keeps everything in memory, up to `limit` bytes; more raises ValueError and ends the run."""

    def __init__(self, limit: int = 256 << 20) -> None:
        self.limit = limit
        self._blocks: dict[Stream, list[bytes]] = {"stdout": [], "stderr": []}
        self._size = 0

    async def write(self, stream: Stream, data: bytes) -> None:
        """Keep a block."""
        self._size += len(data)
        if self._size > self.limit:
            raise ValueError(f"output is over CollectSink's limit of {self.limit} bytes")
        self._blocks[stream].append(data)

    @property
    def stdout(self) -> bytes:
        """All of stdout."""
        return b"".join(self._blocks["stdout"])

    @property
    def stderr(self) -> bytes:
        """All of stderr."""
        return b"".join(self._blocks["stderr"])


class FileSink:
    """Writes stdout to one binary file and stderr to another, each block at once."""

    def __init__(self, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self._files: dict[Stream, BinaryIO] = {"stdout": stdout, "stderr": stderr}

    async def write(self, stream: Stream, data: bytes) -> None:
        """Write and flush a block."""
        file = self._files[stream]
        file.write(data)
        file.flush()


MAX_LINE = 1 << 20
"""A line longer than this many bytes is handed on in pieces, so that memory stays bounded."""


class LineSink:
    """Splits output into lines and hands each, without its newline, to `on_line(stream, line)`.

    Text that doesn't end in a newline is handed on by `close()`. Splitting is by block, not by line, so it is cheap.
    """

    def __init__(self, on_line: Callable[[Stream, bytes], Awaitable[None] | None]) -> None:
        self._on_line = on_line
        self._rest: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self._in_pieces: set[Stream] = set()

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take a block; awaits `on_line` where it is async."""
        on_line = self._on_line
        lines = data.split(b"\n")
        if len(lines) == 1:
            rest = self._rest[stream] + data
            if len(rest) > MAX_LINE:
                self._in_pieces.add(stream)
                await self._one(stream, rest)
                rest = b""
            self._rest[stream] = rest
            return
        lines[0] = self._rest[stream] + lines[0]
        self._rest[stream] = lines.pop()
        if stream in self._in_pieces:
            self._in_pieces.remove(stream)
            if not lines[0]:
                lines.pop(0)  # the newline after the last piece, not an empty line
        for line in lines:
            pending = on_line(stream, line)
            if pending:
                await pending

    async def _one(self, stream: Stream, line: bytes) -> None:
        pending = self._on_line(stream, line)
        if pending is not None:
            await pending

    async def close(self) -> None:
        """Hand on what is left of each stream."""
        for stream, rest in self._rest.items():
            if rest:
                self._rest[stream] = b""
                await self._one(stream, rest)
