"""What is packed, read as it passes, however large: each entry is searched, and one that can't be read is refused.

What a content begins with says what it is. A stream, a zip or base64 of them that stands further in is read too, as far
as it is one: by chance something looks like it. Nothing is kept but the block at hand.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

from bottle.sidecars.egress.containers import Beside, Container, Entries, Entry, Form, Tar, Zip, is_tar
from bottle.sidecars.egress.encodings import FREE_BYTES, MAX_RATIO, Unreadable
from bottle.sidecars.egress.engines import Broken, Engine, of_stream
from opsexec.far.known_values import KnownValues, Stream

HEAD = 512
LAG = 1 << 20
"""More than the largest block of bzip2 or zstd takes, in bytes: so much waits where something is packed in blocks."""

BASE64_LAG = 11, 8
"""How much more that is in base64, with a line break after each line, even one that is written as `\\r\\n`."""

MAX_NESTED = 8
MAX_TRIES = 256
CLOSED = (
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), "a 7z archive"),
    (re.compile(rb"Rar!\x1a\x07"), "a rar archive"),
    (re.compile(rb"\x04\x22\x4d\x18[\x40-\x7f]"), "lz4 data"),
    (re.compile(rb"LZIP\x01"), "lzip data"),
    (re.compile(rb"\]\0\0[\0-\xff]{2}(?:\xff{8}|[\0-\xff]{5}\0{3})"), "lzma data"),
    (re.compile(rb"MSCF\0{4}"), "a cab archive"),
    (re.compile(rb"-----BEGIN PGP MESSAGE-----"), "an encrypted message"),
    (re.compile(rb"age-encryption\.org/v1\n|-----BEGIN AGE ENCRYPTED FILE-----"), "an encrypted file"),
    (re.compile(rb"Salted__|U2FsdGVkX1[89+/]"), "an encrypted file"),
)
"""How content begins that nothing here reads, and what it is."""

_BOUNDARY = re.compile(rb"(--[0-9A-Za-z'()+_,./:=? -]{1,72})\r\n(?:[A-Za-z-]+:|\r\n)")
_ZIP = rb"PK\x03\x04[\0-\x3f]\0[\0-\xff]{2}[\0-\x63]\0"
_STREAM = rb"\x1f\x8b\x08[\0-\x1f][\0-\xff]{6}|BZh[1-9]1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd[\0-\xff]{6}"
_PACKED = re.compile(_ZIP + b"|" + _STREAM)
_ZIPPED = re.compile(rb"(?:PK\x07\x08|PK00)?PK\x03\x04")
_FURTHER_IN = re.compile(
    _ZIP + b"|" + _STREAM + rb"|(?:H4sI|UEsDB|QlpoO|/Td6WFo|KLUv/|N3q8ryc|UmFyIR|U2FsdGVkX1)[0-9A-Za-z+/_-]{12}"
)
"""Archives and streams that don't begin a content, and base64 that begins as one does."""

_LITERALS = (
    b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd",
    b"H4sI", b"UEsDB", b"QlpoO", b"/Td6WFo", b"KLUv/", b"N3q8ryc", b"UmFyIR", b"U2FsdGVkX1",
)  # fmt: skip
"""How these begin: whether one is there at all is told ten times faster than by the pattern."""

LONGEST = 32
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_AS_RUN = bytes(120 if byte in _LETTERS else 0 for byte in range(256))
_RUN = b"x" * 1024
"""So much base64 without a break is taken off whatever it begins with."""
_NOT_BASE64 = re.compile(rb"[^0-9A-Za-z+/_\s-]")
_SPACE = re.compile(rb"\s+")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


Look = Callable[[KnownValues, bytes], "str | None"]


def _further_in(data: bytes) -> int:
    """Return where something packed, or a long run of base64, begins in a text; -1 for nowhere."""
    found = _FURTHER_IN.search(data) if any(each in data for each in _LITERALS) else None
    run = data.translate(_AS_RUN).find(_RUN)
    if found is None:
        return run
    return found.start() if run < 0 else min(run, found.start())


class Holds(Exception):
    """A value was found; `name` is its."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Unpacking:
    """Reads one body. `deep`: how many bytes of what comes out `look` searches in every layer, the rest in one.

    `strict`: the body is what somebody packed, and no mere way to read something; a form's parts are looked for, too.
    """

    def __init__(self, known: KnownValues, look: Look, deep: int = 0, *, strict: bool = True) -> None:
        self._bounds = _Bounds(known, look, deep)
        self._top = _Content(self._bounds, 0, strict=strict)

    @property
    def lag(self) -> int:
        """How many bytes at the end of what was fed may hold what hasn't come out: blocks that are read once whole."""
        return self._bounds.lag

    def feed(self, block: bytes) -> None:
        """Take a block, empty at the end; raises Holds and Unreadable."""
        if block:
            self._bounds.read += len(block)
            self._top.feed(block)
        else:
            self._top.end()


def begins(text: bytes) -> bool:
    """True where a text begins as something packed."""
    return any(form.match(text) for form, _ in CLOSED) or bool(_PACKED.match(text)) or is_tar(text)


class _Bounds:
    def __init__(self, known: KnownValues, look: Look, deep: int) -> None:
        self.known = known
        self.look = look
        self.deep = deep
        self.read = self.out = self.tries = self.lag = 0

    def took_out(self, size: int) -> None:
        self.out += size
        if self.out > FREE_BYTES + MAX_RATIO * self.read:
            raise Unreadable("an archive that unpacks to far more than it is")

    def failed(self) -> None:
        self.tries += 1
        if self.tries > MAX_TRIES:
            raise Unreadable(f"over {MAX_TRIES} beginnings of archives that are none")


class _Content:
    """One body, entry, or unpacked stream. The body itself (`nested` 0) is searched by others as it stands."""

    def __init__(self, bounds: _Bounds, nested: int, *, strict: bool, lag: int = LAG) -> None:
        if nested > MAX_NESTED:
            raise Unreadable(f"archives in archives, over {MAX_NESTED} of them")
        self._bounds = bounds
        self._nested = nested
        self._lag = lag
        self._strict = strict
        self._leaf = _Leaf(bounds, deep=strict) if nested else None
        self._held = b""
        self._begun = self._ending = self._sure = False
        self._inner: Container | None = None

    def feed(self, data: bytes) -> None:
        if self._leaf is not None:
            self._bounds.took_out(len(data))
            self._leaf.feed(data)
        self._read(data)

    def end(self) -> None:
        self._ending = True
        held, self._held = self._held, b""
        self._read(held)
        if self._inner is not None:
            try:
                self._inner.end()
            except Broken:
                if self._sure:
                    raise
        if self._leaf is not None:
            self._leaf.end()

    def _read(self, data: bytes) -> None:
        while data:
            if self._inner is not None:
                data = self._feed_inner(self._inner, data)
                continue
            data, self._held = self._held + data, b""
            if not self._begun:
                if len(data) < HEAD and not self._ending and not (len(data) >= LONGEST and begins(data)):
                    if _further_in(data) >= 0:
                        self._wait()
                    self._held = data
                    return
                self._begun, self._sure, self._inner = True, self._strict, self._at_beginning(data)
                continue
            at = _further_in(data)
            if at < 0:
                run = len(data) - len(data.rstrip(_LETTERS))  # what may go on as base64 is needed from where it began
                self._held = b"" if self._ending else data[-max(LONGEST, run) :]
                return
            data = data[at:]
            self._sure, self._inner = False, self._packed(data) or _Base64(self._entry_in_base64)

    def _feed_inner(self, inner: Container, data: bytes) -> bytes:
        """Hand it on; returns what is still to be read."""
        try:
            rest = inner.feed(data)
        except Broken:
            if self._sure:
                raise
            self._bounds.failed()
            self._inner = None
            return data[1:]
        if rest is None:
            return b""
        self._inner, self._begun = None, False
        return rest

    def _at_beginning(self, data: bytes) -> Container | None:
        for form, what in CLOSED:
            if form.match(data):
                raise Unreadable(what)
        boundary = _BOUNDARY.match(data) if self._nested == 0 else None
        if boundary is not None:
            return Form(self._entry, boundary[1])
        return Tar(self._entry) if is_tar(data) else self._packed(data)

    def _packed(self, data: bytes) -> Container | None:
        if _ZIPPED.match(data):
            self._wait()
            return Zip(self._entry)  # also of a version that its first header only claims
        engine = of_stream(data) if _PACKED.match(data) else None
        if engine is not None and engine.whole_only:
            self._wait()
        return None if engine is None else _Packed(self._entry, engine)

    def _wait(self) -> None:
        self._bounds.lag = max(self._bounds.lag, self._lag)

    def _entry(self, *, strict: bool | None = None) -> _Content:
        strict = self._strict if strict is None else strict
        return _Content(self._bounds, self._nested + 1, strict=strict, lag=self._lag)

    def _entry_in_base64(self) -> _Content:
        longer, than = BASE64_LAG
        return _Content(self._bounds, self._nested + 1, strict=False, lag=self._lag * longer // than)


class _Leaf:
    """Searches what came out: all of it in one layer, its beginning in every one while there is some of `deep` left."""

    def __init__(self, bounds: _Bounds, *, deep: bool) -> None:
        self._bounds = bounds
        self._deep = deep
        self._stream = Stream(bounds.known, mask=False)
        self._beginning = b""

    def feed(self, data: bytes) -> None:
        self._stream.feed(data)
        self._require_none(self._stream.found)
        room = min(self._bounds.deep, len(data)) if self._deep else 0
        if room:
            self._bounds.deep -= room
            self._beginning += data[:room]
            if not self._bounds.deep:
                self._look()

    def end(self) -> None:
        self._stream.feed(b"")
        self._require_none(self._stream.found)
        self._look()

    def _look(self) -> None:
        data, self._beginning = self._beginning, b""
        self._require_none(self._bounds.look(self._bounds.known, data))

    @staticmethod
    def _require_none(found: str | None) -> None:
        if found is not None:
            raise Holds(found)


class _Packed(Container):
    """One compressed stream, whose content is its only entry."""

    def __init__(self, entries: Entries, engine: Engine) -> None:
        super().__init__(entries)
        self._engine = engine
        self._beside = Beside(entries)
        self._content = self._entry()

    def feed(self, data: bytes) -> bytes | None:
        for piece in self._engine.feed(data):
            if piece:
                self._content.feed(piece)
            else:
                self._beside.feed(self._engine.beside)
        if not self._engine.done:
            return None
        self._beside.end()
        self._content.end()
        return self._engine.left

    def end(self) -> None:
        if self._engine.whole_only:
            raise Broken("packed data that breaks off")
        self._beside.end()
        self._content.end()


class _Base64(Container):
    """A run of base64; what is no such character ends it."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry)
        self._content = self._entry()
        self._escape = b""

    def feed(self, data: bytes) -> bytes | None:
        data, self._escape = self._escape + data, b""
        if data.endswith(b"\\"):
            data, self._escape = data[:-1], data[-1:]  # what is escaped comes with the next block
        data = data.replace(b"\\n", b"\n\n").replace(b"\\r", b"\r\r")
        end = _NOT_BASE64.search(data)
        run = self._buffer + _SPACE.sub(b"", data if end is None else data[: end.start()])
        whole = len(run) - len(run) % 4
        self._buffer = run[whole:]
        if whole:
            self._content.feed(binascii.a2b_base64(run[:whole].translate(_URL_SAFE)))
        if end is None:
            return None
        self.end()
        return data[end.start() :]

    def end(self) -> None:
        if len(self._buffer) > 1:
            self._content.feed(binascii.a2b_base64(self._buffer.translate(_URL_SAFE) + b"=" * (4 - len(self._buffer))))
        self._buffer = b""
        self._content.end()
