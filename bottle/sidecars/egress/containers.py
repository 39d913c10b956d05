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
_DIRECTORY_END = 22


class Content(Protocol):
    """What one entry holds, as it is read."""

    def feed(self, data: bytes) -> None:
        """Take some of it."""

    def end(self) -> None:
        """Take note that there is no more."""


Entry = Callable[[], Content]


class Entries(Protocol):
    """Gives what reads the next entry; not `strict`: what stands beside them, where nobody put one but who hides it."""

    def __call__(self, *, strict: bool | None = None) -> Content:
        """Return what reads it."""


class Beside:
    """What is in a container and in no entry: names, fields, gaps. Each run of it is read by itself."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._content: Content | None = None

    def feed(self, data: bytes) -> None:
        """Take some of a run."""
        if data:
            if self._content is None:
                self._content = self._entries(strict=False)
            self._content.feed(data)

    def end(self) -> None:
        """Take note that the run is over."""
        content, self._content = self._content, None
        if content is not None:
            content.end()


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
    """By its local headers, in their order: that is what is there, also where its directory says less.

    Of what is compressed its own end counts, not the size that a header says.
    """

    def __init__(self, entries: Entries) -> None:
        super().__init__(entries)
        self._beside = Beside(entries)
        self._head = bytearray()
        self._fixed = self._wanted = 0
        self._content: Content | None = None
        self._engine: Engine | None = None
        self._left: int | None = 0
        self._empty = False
        self._first = True

    def feed(self, data: bytes) -> bytes | None:
        """Take some; returns what stands behind its end, None while that isn't reached. Raises Unreadable."""
        data = self._buffer + data
        self._buffer = b""
        while data:
            if self._content is not None:
                data = self._within(data) if self._engine is None else self._within_packed(self._engine, data)
                continue
            if not self._wanted:
                data = self._between(data)
                continue
            data = self._within_head(data)
            if len(self._head) < self._wanted:
                continue
            self._wanted = 0
            self._beside.end()
            if self._fixed == _DIRECTORY_END:
                return data
            self._open(bytes(self._head))
        return None

    def _between(self, data: bytes) -> bytes:
        """Take what stands in front of the next header, and return the rest."""
        if self._empty:
            if len(data) < 4:
                self._buffer = data
                return b""
            if not _AFTER_ENTRY.match(data):
                raise Unreadable(WRONG_SIZE)
            self._empty = False
        found = _SIGNATURE.search(data)
        if found is None:  # the last bytes may be the beginning of one
            self._beside.feed(data[:-3])
            self._buffer = data[-3:]
            return b""
        self._beside.feed(data[: found.start()])
        self._beside.end()
        self._fixed = self._wanted = _LOCAL if found[0] == b"PK\x03\x04" else _DIRECTORY_END
        self._head.clear()
        return data[found.start() :]

    def _within_head(self, data: bytes) -> bytes:
        """Take what of it is the header's, and return the rest; the name, the fields and the comment are read, too."""
        own = data[: self._wanted - len(self._head)]
        self._head += own
        if self._wanted > self._fixed:
            self._beside.feed(own)
        elif len(self._head) == self._fixed:
            ats = (26, 28) if self._fixed == _LOCAL else (20,)
            self._wanted += sum(int.from_bytes(self._head[at : at + 2], "little") for at in ats)
        return data[len(own) :]

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
        self._empty = method != STORED and self._left == 0
        if self._left != 0:
            self._content = self._entry()

    def _within(self, data: bytes) -> bytes:
        """Hand on what of it is this entry's, and return the rest."""
        assert self._content is not None
        if self._left is None:
            found = _AFTER_ENTRY.search(data)
            if found is None:
                self._content.feed(data[:-3])
                self._buffer = data[-3:]
                return b""
            own, rest = data[: found.start()], data[found.start() :]
        else:
            own, rest = data[: self._left], data[self._left :]
            self._left -= len(own)
        self._content.feed(own)
        if rest or self._left == 0:
            self._content.end()
            self._content = None
        return rest

    def _within_packed(self, engine: Engine, data: bytes) -> bytes:
        """Hand on what comes out of it, and return the rest, from where the data itself says that it ends."""
        assert self._content is not None
        own = data if self._left is None else data[: self._left]
        for piece in engine.feed(own):
            self._content.feed(piece)
        if self._left is not None:
            self._left -= len(own)
        if engine.done:
            self._content.end()
            self._content = None
            return engine.left + data[len(own) :]
        if self._left == 0:
            raise Unreadable(WRONG_SIZE)
        return b""

    def end(self) -> None:
        """Take note that there is no more; raises Broken where an end that is missing may hide something."""
        if self._content is None:
            self._beside.feed(self._buffer)
            self._beside.end()
            return
        if self._engine is None:
            self._content.feed(self._buffer)
        elif self._engine.whole_only:
            raise Broken("a zip archive whose entry breaks off")
        self._content.end()


WRONG_SIZE = "a zip archive whose entry isn't of the size it says"
_SIGNATURE = re.compile(rb"PK\x03\x04|PK\x05\x06")
_AFTER_ENTRY = re.compile(rb"PK(?:\x03\x04|\x05\x06|\x07\x08|\x01\x02)")


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

    def __init__(self, entries: Entries) -> None:
        super().__init__(entries)
        self._beside = Beside(entries)
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
            self._beside.feed(data[:skipped])
            data = data[skipped:]
            if len(data) < 512:
                self._buffer = data
                return None
            if not is_tar(data):
                self._beside.end()
                return data
            self._beside.feed(b"\0" + data[:512])  # so it is no header
            self._beside.end()
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
        self._beside.feed(b"\0" + self._buffer)
        self._beside.end()


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
    """The parts of a multipart body, each behind its own head (RFC 2046, 5.1), and what stands behind the last one."""

    def __init__(self, entries: Entries, boundary: bytes) -> None:
        super().__init__(entries)
        self._entries = entries
        self._beside = Beside(entries)
        self._boundary = b"\r\n" + boundary
        self._buffer = b"\r\n"
        self._head = 0
        self._content: Content | None = None

    def feed(self, data: bytes) -> bytes | None:
        """Take some; there is nothing behind its end."""
        data = self._buffer + data
        self._buffer = b""
        while data:
            data = self._within_head(data) if self._content is None else self._within(self._content, data)
        return None

    def _within(self, content: Content, data: bytes) -> bytes:
        at = data.find(self._boundary)
        if at < 0:
            kept = len(self._boundary)
            content.feed(data[:-kept])
            self._buffer = data[-kept:]
            return b""
        content.feed(data[:at])
        content.end()
        self._content = None
        return data[at:]

    def _within_head(self, data: bytes) -> bytes:
        if not self._head:
            size = len(self._boundary)
            if len(data) < size + 2:
                self._buffer = data
                return b""
            if data[size : size + 2] == b"--":
                self._content = self._entries(strict=False)
                return data[size + 2 :]
            self._head, data = size, data[size:]
        end = data.find(b"\r\n\r\n")
        own = data[:-3] if end < 0 else data[: end + 4]
        self._beside.feed(own)
        self._head += len(own)
        if self._head > MAX_ENTRY_HEAD:
            raise Unreadable("a form whose part has an endless head")
        if end < 0:
            self._buffer = data[-3:]
            return b""
        self._beside.end()
        self._head = 0
        self._content = self._entry()
        return data[end + 4 :]

    def end(self) -> None:
        """Take note that there is no more."""
        if self._content is not None:
            self._content.feed(self._buffer)
            self._content.end()
        else:
            self._beside.feed(self._buffer)
            self._beside.end()
