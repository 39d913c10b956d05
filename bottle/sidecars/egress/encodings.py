"""Content encodings, taken off within bounds: a small body that unpacks to a large one costs no more than the bound."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

MAX_DECODED = 32 << 20
"""How much a body that was read whole may unpack to, in bytes."""

MAX_RATIO = 200
FREE_BYTES = 4 << 20
"""A body that is read as it passes may unpack to this much, in bytes, and beyond it to MAX_RATIO times itself."""

PIECE_OUT = 1 << 20
PIECE_IN = {"zstd": 256, "br": 16}
"""How much goes into a decoder at once whose output has no bound: a few bytes of it hold at most some megabytes."""

STREAMED = frozenset({"gzip", "x-gzip", "deflate", "zstd"})
"""What can be read as it passes. A whole body may be brotli too, which is too slow in such pieces for a large one."""


class Unreadable(ValueError):
    """A body that isn't in the encoding it says it is in, or unpacks to more than is read; the text says which."""


def why(error: Exception) -> str:
    """Return what is said of something that wasn't judged because of this error."""
    if isinstance(error, Unreadable):
        return f"can't be read: {error}"
    return f"could not be judged ({type(error).__name__})"


class Decoder:
    """Takes one content encoding off a body that comes in blocks; what stands behind its end is unreadable."""

    def __init__(self, encoding: str) -> None:
        if encoding not in STREAMED and encoding != "br":
            raise Unreadable("a content-encoding that can't be read")
        self._encoding = "gzip" if encoding == "x-gzip" else encoding
        self._engine: Any = None
        self._read = 0
        self._out = 0
        self._done = False

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Yield what comes out, in pieces of bounded size; raises Unreadable."""
        self._read += len(block)
        step = PIECE_IN.get(self._encoding, len(block) or 1)
        for at in range(0, len(block), step):
            for piece in self._decoded(block[at : at + step]):
                self._out += len(piece)
                if self._out > FREE_BYTES + MAX_RATIO * self._read:
                    raise Unreadable("a body that unpacks to far more than it is")
                yield piece

    def end(self) -> None:
        """Say that there is no more; raises Unreadable where something is missing."""
        if self._read and not self._done and not self._finished():
            raise Unreadable("a body whose content-encoding breaks off")

    def _finished(self) -> bool:
        if self._encoding == "br":
            return self._engine is not None and bool(self._engine.is_finished())
        return self._engine is None or bool(self._engine.eof)

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        if self._encoding == "br":
            yield self._brotli(data)
        elif self._encoding == "zstd":
            yield from self._zstd(data)
        else:
            yield from self._zlib(data)

    def _brotli(self, data: bytes) -> bytes:
        import brotli

        if self._engine is None:
            self._engine = brotli.Decompressor()
        elif self._engine.is_finished():
            raise Unreadable("a body that goes on behind the end of its encoding")
        try:
            out: bytes = self._engine.process(data)
        except brotli.error as error:
            raise Unreadable("a body that isn't in its content-encoding") from error
        return out

    def _zstd(self, data: bytes) -> Iterator[bytes]:
        import zstandard

        while data:
            if self._engine is None:
                self._engine = zstandard.ZstdDecompressor(max_window_size=16 << 20).decompressobj()
            try:
                yield self._engine.decompress(data)
            except zstandard.ZstdError as error:
                raise Unreadable("a body that isn't in its content-encoding") from error
            if not self._engine.eof:
                return
            data, self._engine = self._engine.unused_data, None  # another frame may follow

    def _zlib(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._engine is None:
                self._engine = zlib.decompressobj(31) if self._encoding == "gzip" else self._deflate(data)
            try:
                yield self._engine.decompress(data, PIECE_OUT)
                while self._engine.unconsumed_tail:
                    yield self._engine.decompress(self._engine.unconsumed_tail, PIECE_OUT)
            except zlib.error as error:
                raise Unreadable("a body that isn't in its content-encoding") from error
            if not self._engine.eof:
                return
            data = self._engine.unused_data
            if data and self._encoding == "deflate":
                raise Unreadable("a body that goes on behind the end of its encoding")
            if self._encoding == "gzip":
                self._engine = None  # another member may follow

    @staticmethod
    def _deflate(data: bytes) -> Any:
        """Return a decoder for deflate, which half the world sends without the header it should have."""
        headed = data[0] & 0x0F == 8 and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 == 0)
        return zlib.decompressobj(15 if headed else -15)


def decoded(body: bytes, encoding: str) -> bytes:
    """Return a whole body without its content encoding; raises Unreadable."""
    if encoding in ("", "identity"):
        return body
    decoder = Decoder(encoding)
    parts = []
    size = 0
    for piece in decoder.feed(body):
        size += len(piece)
        if size > MAX_DECODED:
            raise Unreadable("a body that unpacks to more than is read")
        parts.append(piece)
    decoder.end()
    return b"".join(parts)
