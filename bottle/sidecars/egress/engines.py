"""Decompressors behind one shape: blocks in, pieces of bounded size out, and what stands behind the end handed back."""

from __future__ import annotations

import bz2
import gc
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, ClassVar
from weakref import finalize

from bottle.sidecars.egress.encodings import Unreadable

PIECE = 64 << 10
"""How much comes out at once, in bytes."""

ZSTD_STEP = 256
"""A decoder whose output has no bound gets this much at once, in bytes: at most some megabytes."""

WINDOW = 16 << 20
BZIP2 = 4 << 20
MEMORY = 66 << 20
"""What an xz decoder may take, in bytes: all that `xz -9` asks for."""

MEMORY_OF_ALL = 192 << 20
"""What all decoders, and what waits for them, may take at once, in bytes."""


class Broken(Unreadable):
    """Something began as packed data and isn't: where it only looked like that, it is no reason to refuse."""


class _Room:
    """What all have taken by now, in bytes."""

    taken: ClassVar[int] = 0

    @classmethod
    def give_back(cls, size: int) -> None:
        cls.taken -= size


def take_room(holder: object, size: int) -> None:
    """Count memory as taken until its holder is gone; raises Unreadable where all have as much as they may."""
    if _Room.taken + size > MEMORY_OF_ALL:
        gc.collect()  # holders that only point at each other
    if _Room.taken + size > MEMORY_OF_ALL:
        raise Unreadable("packed data, of which too much is read already")
    _Room.taken += size
    finalize(holder, _Room.give_back, size).atexit = False


class Engine:
    """Takes one format off. `left`: what was fed and stands behind its end, once `done`.

    `beside`: what of the block at hand is a name or a field, there while an empty first piece is.

    `whole_only`: what is missing of a stream that breaks off may hide what stands in what is there.
    """

    whole_only = True

    def __init__(self, takes: int = 0) -> None:
        self.done = False
        self.left = self.beside = b""
        if takes:
            take_room(self, takes)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out; raises Broken."""
        raise NotImplementedError


class Inflate(Engine):
    """Deflate without a frame: each symbol comes out once its last bit is there, so its end hides nothing."""

    whole_only = False

    def __init__(self) -> None:
        super().__init__()
        self._engine = zlib.decompressobj(-15)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out; raises Broken."""
        try:
            piece = self._engine.decompress(data, PIECE)
            yield piece
            while not self._engine.eof and (self._engine.unconsumed_tail or len(piece) == PIECE):
                piece = self._engine.decompress(self._engine.unconsumed_tail, PIECE)
                yield piece
        except zlib.error as error:
            raise Broken("packed data that is damaged") from error
        self.done, self.left = self._engine.eof, self._engine.unused_data


class Gzip(Engine):
    """One member, its checksum not asked for: who wants what is in it need not, either (RFC 1952)."""

    whole_only = False

    def __init__(self) -> None:
        super().__init__()
        self._head = bytearray()
        self._inflate: Inflate | None = None
        self._trailer = 8

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out; raises Broken."""
        if self._inflate is None:
            before = len(self._head)
            self._head += data
            size = _gzip_head(self._head)
            self.beside = bytes(self._head[max(before, _GZIP_FIXED) : size])
            yield b""
            self.beside = b""
            if size is None:
                if len(self._head) > _GZIP_HEAD:
                    raise Broken("packed data with an endless head")
                return
            data, self._inflate = bytes(self._head[size:]), Inflate()
            self._head.clear()
        before_end = not self._inflate.done
        if before_end:
            yield from self._inflate.feed(data)
            data = self._inflate.left
        if before_end and not self._inflate.done:
            return
        skipped = min(self._trailer, len(data))
        self._trailer -= skipped
        self.done, self.left = self._trailer == 0, data[skipped:]


_GZIP_FIXED = 10
_GZIP_HEAD = PIECE + (PIECE >> 1)


def _gzip_head(data: bytearray) -> int | None:
    """Return how long a member's head is; None while it isn't all there."""
    if len(data) < _GZIP_FIXED:
        return None
    flags, at = data[3], _GZIP_FIXED
    if flags & 4:
        if len(data) < at + 2:
            return None
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (8, 16):
        if flags & flag:
            end = data.find(b"\0", at)
            if end < 0:
                return None
            at = end + 1
    at += 2 if flags & 2 else 0
    return at if len(data) >= at else None


class Blocks(Engine):
    """bzip2 and xz, by the standard library's decoders."""

    def __init__(self, engine: Any, takes: int) -> None:
        super().__init__(takes)
        self._engine = engine

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out; raises Broken."""
        try:
            yield self._engine.decompress(data, PIECE)
            while not self._engine.needs_input and not self._engine.eof:
                yield self._engine.decompress(b"", PIECE)
        except (OSError, lzma.LZMAError, EOFError, ValueError) as error:
            raise Broken("packed data that is damaged") from error
        self.done, self.left = self._engine.eof, self._engine.unused_data


class Zstd(Engine):
    """One frame."""

    def __init__(self) -> None:
        import zstandard

        super().__init__(WINDOW)
        self._error = zstandard.ZstdError
        self._engine = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out; raises Broken."""
        for at in range(0, len(data), ZSTD_STEP):
            try:
                yield self._engine.decompress(data[at : at + ZSTD_STEP])
            except self._error as error:
                raise Broken("packed data that is damaged") from error
            if self._engine.eof:
                self.done, self.left = True, self._engine.unused_data + data[at + ZSTD_STEP :]
                return


def of_stream(head: bytes) -> Engine | None:
    """Return what reads data that begins so; None where it is no compressed stream."""
    if head[:3] == b"\x1f\x8b\x08":
        return Gzip()
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        return Blocks(bz2.BZ2Decompressor(), BZIP2)
    if head[:6] == b"\xfd7zXZ\0":
        return Blocks(lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY), MEMORY)
    return Zstd() if head[:4] == b"\x28\xb5\x2f\xfd" else None


def of_zip(method: int) -> Engine | None:
    """Return what reads a zip entry of this method; None where nothing here does (APPNOTE.TXT 4.4.5)."""
    if method == 8:
        return Inflate()
    if method == 12:
        return Blocks(bz2.BZ2Decompressor(), BZIP2)
    if method == 95:
        return Blocks(lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY), MEMORY)
    return Zstd() if method == 93 else None
