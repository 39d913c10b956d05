"""Zip, tar and multipart forms, read as they pass: their entries are handed on, wherever each begins and ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from bottle.sidecars.egress.encodings import Unreadable
from bottle.sidecars.egress.engines import Broken, Engine, of_zip

MAX_ENTRY_HEAD = 160 << 10
STORED = 0
ENCRYPTED = 99
_LOCAL = 30


class Content(Protocol):
    """What one entry holds, as it is read."""

    def feed(self, data: bytes) -> None:
        """Take some of it."""

    def end(self) -> None:
        """Take note that there is no more."""


Entry = Callable[[], Content]


class Container:
    """Reads one; `entry` is called for each of its entries."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._buffer = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take some; returns what stands behind its end, None while that isn't reached. Raises Unreadable."""
        raise NotImplementedError

    def end(self) -> None:
        """Take note that there is no more; what broke off is read as far as it went."""


class Zip(Container):
    """By its local headers, in their order: that is what is there, also where its directory says less."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        self._content: Content | None = None
        self._engine: Engine | None = None
        self._left: int | None = 0
        self._first = True

    def feed(self, data: bytes) -> bytes | None:
        """Take some; returns what stands behind its end, None while that isn't reached. Raises Unreadable."""
        data = self._buffer + data
        self._buffer = b""
        while data:
            if self._content is not None:
                data = self._within(data)
                continue
            at = _next_signature(data)
            if at < 0:
                self._buffer = data[-3:]
                return None
            data = data[at:]
            if data[2:4] == b"\x05\x06":
                size = 22 + (int.from_bytes(data[20:22], "little") if len(data) >= 22 else 0)
                if len(data) < size:
                    self._buffer = data
                    return None
                return data[size:]
            size = _LOCAL
            if len(data) >= _LOCAL:
                size += int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
            if len(data) < size:
                self._buffer = data
                return None
            self._open(data[:size])
            data = data[size:]
        return None

    def _open(self, head: bytes) -> None:
        flags, method = (int.from_bytes(head[at : at + 2], "little") for at in (6, 8))
        if self._first and method > ENCRYPTED:
            raise Broken("a zip archive that is damaged")
        self._first = False
        if flags & 1 or method == ENCRYPTED:
            raise Unreadable("an encrypted zip archive")
        packed = int.from_bytes(head[18:22], "little")
        if packed == 0xFFFFFFFF:
            packed = _large_size(head[_LOCAL + int.from_bytes(head[26:28], "little") :])
        self._left = None if flags & 8 and not packed else packed
        self._engine = None
        if method != STORED:
            self._engine = of_zip(method)
            if self._engine is None:
                raise Unreadable("a zip archive that is packed in a way that isn't read here")
        if self._left != 0:
            self._content = self._entry()

    def _within(self, data: bytes) -> bytes:
        """Hand on what of it is this entry's, and return the rest."""
        assert self._content is not None
        own, rest = data, b""
        if self._left is not None:
            own, rest = data[: self._left], data[self._left :]
            self._left -= len(own)
        elif self._engine is None:
            at = _next_signature(data, end_of_entry=True)
            if at < 0:  # the last bytes may be the beginning of one
                self._content.feed(data[:-3])
                self._buffer = data[-3:]
                return b""
            own, rest = data[:at], data[at:]
        if self._engine is None:
            self._content.feed(own)
            ended = bool(rest) or self._left == 0
        else:
            if not self._engine.done:
                for piece in self._engine.feed(own):
                    self._content.feed(piece)
            ended = self._left == 0
            if self._left is None and self._engine.done:
                ended, rest = True, self._engine.left
        if ended:
            self._require_whole()
            self._content.end()
            self._content = None
        return rest

    def end(self) -> None:
        """Take note that there is no more; raises Broken where an end that is missing may hide something."""
        if self._content is not None:
            if self._engine is None:
                self._content.feed(self._buffer)
            self._require_whole()
            self._content.end()

    def _require_whole(self) -> None:
        if self._engine is not None and self._engine.whole_only and not self._engine.done:
            raise Broken("a zip archive whose entry breaks off")


_SIGNATURE = re.compile(rb"PK\x03\x04|PK\x05\x06")
_AFTER_STORED = re.compile(rb"PK(?:\x03\x04|\x05\x06|\x07\x08|\x01\x02)")


def _next_signature(data: bytes, *, end_of_entry: bool = False) -> int:
    found = (_AFTER_STORED if end_of_entry else _SIGNATURE).search(data)
    return -1 if found is None else found.start()


def _large_size(extra: bytes) -> int:
    """Return the packed size that an entry's zip64 field says (APPNOTE.TXT 4.5.3)."""
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == 1 and size >= 16:
            return int.from_bytes(extra[12:20], "little")
        extra = extra[4 + size :]
    raise Broken("a zip archive that is damaged")


class Tar(Container):
    """A row of blocks: a header whose checksum is right, what it says of content, and so on (tar(5))."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        self._content: Content | None = None
        self._left = 0
        self._padding = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take some; returns what stands behind its end, None while that isn't reached."""
        data = self._buffer + data
        self._buffer = b""
        while data:
            if self._content is not None:
                own, data = data[: self._left], data[self._left :]
                self._content.feed(own)
                self._left -= len(own)
                if not self._left:
                    self._content.end()
                    self._content = None
                continue
            skipped = min(self._padding, len(data))
            self._padding -= skipped
            data = data[skipped:]
            if len(data) < 512:
                self._buffer = data
                return None
            if not is_tar(data):
                return data
            size = b"" if data[156:157] in b"123456" else data[124:136]
            self._left = _number(size)
            self._padding = -self._left % 512
            if self._left:
                self._content = self._entry()
            data = data[512:]
        return None

    def end(self) -> None:
        """Take note that there is no more."""
        if self._content is not None:
            self._content.end()


def is_tar(block: bytes) -> bool:
    """True where this begins with a header whose checksum is right."""
    said = block[148:156].strip(b" \0")
    if len(block) < 512 or not said or not block[0] or any(byte not in b"01234567" for byte in said):
        return False
    return int(said, 8) == sum(block[:148]) + 8 * 0x20 + sum(block[156:512])


def _number(field: bytes) -> int:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and all(byte in b"01234567" for byte in digits) else 0


class Form(Container):
    """The parts of a multipart body, each behind its own head (RFC 2046, 5.1)."""

    def __init__(self, entry: Entry, boundary: bytes) -> None:
        super().__init__(entry)
        self._boundary = b"\r\n" + boundary
        self._buffer = b"\r\n"
        self._content: Content | None = None

    def feed(self, data: bytes) -> bytes | None:
        """Take some; there is nothing behind its end."""
        data = self._buffer + data
        self._buffer = b""
        while True:
            at = data.find(self._boundary)
            if self._content is not None:
                if at < 0:
                    kept = len(self._boundary)
                    self._content.feed(data[:-kept])
                    self._buffer = data[-kept:]
                    return None
                self._content.feed(data[:at])
                self._content.end()
                self._content = None
                data = data[at:]
                continue
            end = -1 if at < 0 else data.find(b"\r\n\r\n", at)
            if end < 0:
                if len(data) > MAX_ENTRY_HEAD:
                    raise Unreadable("a form whose part has an endless head")
                self._buffer = data
                return None
            data = data[end + 4 :]
            self._content = self._entry()

    def end(self) -> None:
        """Take note that there is no more."""
        if self._content is not None:
            self._content.feed(self._buffer)
            self._content.end()
