"""Looking into archives and compressed streams, within bounds; what can't be looked into whole is refused."""

from __future__ import annotations

import re

from opsexec.far.git_run import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_MEMBERS = 20000
MAX_STREAMS = 4096
LZMA_MEMORY = 128 << 20
CLOSED = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"\x04\x22\x4d\x18": "lz4 data",
    b"LZIP\1": "lzip data",
    b"MSCF\0\0\0\0": "a cab archive",
    b"-----BEGIN PGP MESSAGE-----": "an encrypted message",
    b"age-encryption.org/v1": "an encrypted file",
    b"Salted__": "an encrypted file",
}
"""How data begins that holds more than the gate can read."""

_LZMA = re.compile(rb"\]\0\0(?!\0\0)[\0-\xff]{2}(?:\xff{8}|(?!\0{5})[\0-\xff]{5}\0{3})\0")
"""How what lzma(1) writes begins: its size is told in 5 bytes or not at all, and its first byte of data is 0 (LZMA SDK,
lzma-specification.txt). It has no mark of its own, and a line of a program's base64 may begin so by chance."""

_BEGINNING = re.compile(
    rb"\x1f\x8b\x08[\0-\x1f][\0-\xff]{4}[\0\2\4][\0-\x0d\xff]|BZh[1-9]1AY&SY|\xfd7zXZ\0|PK[\3\5][\4\6]"
)
"""How data begins that must be readable to its end, exact enough that chance doesn't make it."""

_LOCAL = re.compile(rb"PK\x03\x04[\0-\xff]{4}([\x08\0])\0[\0-\xff]{16}([\0-\xff]{2})([\0-\xff]{2})")
"""The head of a zip's entry, deflated or stored, up to its name, with how long that is and the field behind it."""

_SMALL_WINDOWS = frozenset(bytes([each]) for each in range(0x08, 0x78, 0x10))
_ANYWHERE = rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|BZh[1-9]1AY&SY|\xfd7zXZ\0"
_STREAM = re.compile(_ANYWHERE)
_STREAM_IN_FILE = re.compile(
    _ANYWHERE
    + rb"|[\x08\x18(8HXh][\0-\xff](?:(?<=\A[\0-\xff]{2})|(?<=stream\n[\0-\xff]{2})|(?<=stream\r\n[\0-\xff]{2})"
    rb"|(?<=IDAT[\0-\xff]{2}))"
)
"""The same and zlib's smaller windows, which text may look like: at its beginning and where PDF or PNG have them."""


class Budget:
    """How much may come out of what one push brings, in bytes."""

    def __init__(self, total: int, each: int) -> None:
        self.left = total
        self.each = each

    def take(self, size: int) -> None:
        """Count what came out; raises Refused when that is more than a push may unpack to."""
        self.left -= size
        if self.left < 0:
            raise Refused("what it packs is larger than the gate unpacks")


def is_archive(data: bytes) -> bool:
    """True where data begins as something to unpack."""
    if len(data) > 8 and data[0] & 0x8F == 8 and (data[0] << 8 | data[1]) % 31 == 0:
        return True
    return (
        bool(_BEGINNING.match(data))
        or data[257:262] == b"ustar"
        or bool(_LZMA.match(data) or data.startswith(tuple(CLOSED)))
    )


class Unreadable(Refused):
    """Something begins as an archive and isn't one to its end."""


def members(data: bytes, budget: Budget, *, strict: bool = True) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of everything inside; raises Refused for what can't be looked into whole.

    `strict`: data is what somebody stored. Of a mere way to read something, what looks like an archive by chance is no
    reason to refuse it, as the stored form is looked at too.
    """
    read = _Read(data)
    for reader in (_closed, _lzma, _tar, _zip, _local_entries, _streams):
        try:
            yield from reader(data, budget, read)
        except Unreadable:
            if strict:
                raise


class _Read:
    """What is known of data by now.

    `left`: what is in no entry of a tar. `told`: where a zip's entries are, by its directory, and how large.
    """

    def __init__(self, data: bytes) -> None:
        self.left = data
        self.told = {}  # type: dict[int, int]


def _closed(data: bytes, budget: Budget, read: _Read) -> Iterator[tuple[str, bytes]]:
    for magic, what in CLOSED.items():
        if data.startswith(magic):
            raise Unreadable(f"it is {what}, which the gate can't look into")
    yield from ()


def _lzma(data: bytes, budget: Budget, read: _Read) -> Iterator[tuple[str, bytes]]:
    """Yield what comes out of it, to its end or not: behind what is damaged nobody reads on."""
    import lzma

    if not _LZMA.match(data):
        return
    if int.from_bytes(data[1:5], "little") > LZMA_MEMORY // 2:
        raise Unreadable("it is lzma data that takes more memory than the gate has for it")
    engine = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY)
    content, _, _ = _inflate(data, 0, engine, budget)
    if content:
        yield "stream", content


def _tar(data: bytes, budget: Budget, read: _Read) -> Iterator[tuple[str, bytes]]:
    import io
    import tarfile

    if data[257:262] != b"ustar":
        return
    beside = []
    over = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise Refused(f"an archive in it has over {MAX_MEMBERS} entries")
                names = [
                    member.name,
                    member.linkname,
                    member.uname,
                    member.gname,
                    *map(str, member.pax_headers.values()),
                ]
                content = b""
                if member.size < 0:
                    raise Unreadable("a tar archive in it says that an entry has less than no bytes")
                if member.isreg() or member.type not in tarfile.SUPPORTED_TYPES:  # of an unknown type tar makes a file
                    budget.take(member.size)
                    file = archive.extractfile(member)
                    content = file.read() if file is not None else b""
                    if not member.issparse():
                        beside.append(data[over : member.offset_data])
                        over = member.offset_data + member.size
                yield "\n".join(names), content
    except (tarfile.TarError, OSError, EOFError, ValueError, ArithmeticError, LookupError, MemoryError) as error:
        raise Unreadable(f"a tar archive in it can't be read whole ({type(error).__name__})") from error
    read.left = b"".join(beside) + data[over:]


def _zip(data: bytes, budget: Budget, read: _Read) -> Iterator[tuple[str, bytes]]:
    import io
    import lzma
    import struct
    import zipfile
    import zlib

    if b"PK\x05\x06" not in data and not data.startswith(b"PK\x03\x04"):
        return
    damaged = (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        OSError,  # what bz2 says of damaged data
        EOFError,
        struct.error,
        NotImplementedError,
        RuntimeError,
        ValueError,
        ArithmeticError,
        LookupError,
        MemoryError,  # lzma asks for as much as its head says
    )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_MEMBERS:
                raise Refused(f"an archive in it has over {MAX_MEMBERS} entries")
            yield "zip comment", archive.comment
            for entry in entries:
                if entry.flag_bits & 1:
                    raise Refused("a zip archive in it is encrypted")
                if entry.file_size > budget.each:
                    raise Refused("a zip archive in it holds more than the gate unpacks")
                budget.take(entry.file_size)
                with archive.open(entry) as file:
                    content = file.read(entry.file_size + 1)
                read.told[entry.header_offset] = len(content)
                yield entry.filename, content + b"\n" + entry.comment + b"\n" + entry.extra
    except damaged as error:
        if data.startswith(b"PK\x03\x04"):
            raise Unreadable(f"a zip archive in it can't be read whole ({type(error).__name__})") from error


def _local_entries(data: bytes, budget: Budget, read: _Read) -> Iterator[tuple[str, bytes]]:
    """Yield what is deflated behind a zip's local headers: its directory may leave an entry out, or say less of it."""
    import zlib

    count = over = 0
    for found in _LOCAL.finditer(data):
        if found.start() < over:
            continue  # it is read as an entry of that entry
        count += 1
        if count > MAX_MEMBERS:
            raise Refused(f"an archive in it has over {MAX_MEMBERS} entries")
        at = found.end() + int.from_bytes(found[2], "little") + int.from_bytes(found[3], "little")
        told = read.told.get(found.start())
        if found[1] == b"\0":
            over = at + (told or 0)
        elif told is None or not _deflates_to(told, data, at):
            content, _, _ = _inflate(data, at, zlib.decompressobj(-15), budget)
            if content:
                yield "entry", content


def _deflates_to(size: int, data: bytes, at: int) -> bool:
    """True where the deflated data that begins there is of this size, and of no more."""
    import zlib

    try:
        return len(zlib.decompressobj(-15).decompress(memoryview(data)[at:], size + 1)) == size
    except zlib.error:
        return False


def _streams(data: bytes, budget: Budget, read: _Read) -> Iterator[tuple[str, bytes]]:
    """Everything that looks like the beginning of compressed data, wherever it stands (PNG, PDF, after a file)."""
    end = 0
    tried = 0
    broken = False
    left = read.left
    in_file = left[:1] in _SMALL_WINDOWS or b"stream" in left or b"IDAT" in left
    for found in (_STREAM_IN_FILE if in_file else _STREAM).finditer(left):
        at = found.start()
        if at < end:
            continue
        tried += 1
        if tried > MAX_STREAMS:
            if len(left) < 1024 * MAX_STREAMS:
                raise Refused(f"a file in it has over {MAX_STREAMS} compressed streams")
            tried = -len(left)  # so many beginnings are chance in a file of this size
        content, used, whole = _inflate(left, at, _engine(found[0]), budget)
        if content:
            end = at + used
            yield "stream", content
        broken = broken or (at == 0 and not whole)
    if broken and _BEGINNING.match(left):
        raise Unreadable("compressed data in it can't be read whole")


def _engine(head: bytes) -> Any:
    """Return what unpacks a stream that begins so."""
    import bz2
    import lzma
    import zlib

    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if head.startswith(b"\xfd7z"):
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)
    return zlib.decompressobj(31 if head.startswith(b"\x1f") else 15)


def _inflate(data: bytes, at: int, engine: Any, budget: Budget) -> tuple[bytes, int, bool]:
    """Return (what came out, how many bytes went in, whether its end was reached)."""
    import lzma
    import zlib

    view = memoryview(data)[at:]
    parts = []
    size = 0
    used = 0
    of_zlib = hasattr(engine, "copy")
    step = 16384 if of_zlib else 1024  # one KiB of the others may hold megabytes
    try:
        while used < len(view) and not engine.eof:
            block = view[used : used + step]
            before = engine.copy() if of_zlib else None
            try:
                out = engine.decompress(block)
            except zlib.error:
                out = _up_to_the_damage(before, block)
                parts.append(out)
                size += len(out)
                raise
            used += len(block)
            size += len(out)
            if size > budget.each:
                raise Refused(f"compressed data in it unpacks to more than {budget.each >> 20} MiB")
            parts.append(out)
        whole = engine.eof
        used -= len(engine.unused_data)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError, MemoryError):
        whole, used = False, 2
    if size < 8 and not whole:
        return b"", 0, False
    budget.take(size)
    return b"".join(parts), max(used, 2), whole


def _up_to_the_damage(engine: Any, block: memoryview) -> bytes:
    """Return what comes out of a damaged block: who only wants to read it minds no checksum that is wrong."""
    import zlib

    out = b""
    for step in (128, 1):
        for at in range(0, len(block), step):
            before = engine.copy()
            try:
                out += engine.decompress(block[at : at + step])
            except zlib.error:
                engine, block = before, block[at : at + step]
                break
    return out
