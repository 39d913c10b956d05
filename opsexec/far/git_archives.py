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
CLOSED = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"\x04\x22\x4d\x18": "lz4 data",
    b"LZIP\1": "lzip data",
    b"]\0\0": "lzma data",
    b"MSCF\0\0\0\0": "a cab archive",
    b"-----BEGIN PGP MESSAGE-----": "an encrypted message",
    b"age-encryption.org/v1": "an encrypted file",
    b"Salted__": "an encrypted file",
}
"""How data begins that holds more than the gate can read."""

_BEGINNING = re.compile(
    rb"\x1f\x8b\x08[\0-\x1f][\0-\xff]{4}[\0\2\4][\0-\x0d\xff]|BZh[1-9]1AY&SY|\xfd7zXZ\0|PK[\3\5][\4\6]"
)
"""How data begins that must be readable to its end, exact enough that chance doesn't make it."""

_STREAM = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|BZh[1-9]1AY&SY|\xfd7zXZ\0")


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
    if data[:1] == b"x" and len(data) > 8 and (data[0] << 8 | data[1]) % 31 == 0:
        return True
    return bool(_BEGINNING.match(data)) or data[257:262] == b"ustar" or data.startswith(tuple(CLOSED))


class Unreadable(Refused):
    """Something begins as an archive and isn't one to its end."""


def members(data: bytes, budget: Budget, *, strict: bool = True) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of everything inside; raises Refused for what can't be looked into whole.

    `strict`: data is what somebody stored. Of a mere way to read something, what looks like an archive by chance is no
    reason to refuse it, as the stored form is looked at too.
    """
    if strict:
        yield from _members(data, budget)
        return
    try:
        yield from _members(data, budget)
    except Unreadable:
        return


def _members(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    for magic, what in CLOSED.items():
        if data.startswith(magic):
            raise Unreadable(f"it is {what}, which the gate can't look into")
    tar = data[257:262] == b"ustar"
    if tar:
        yield from _tar(data, budget)
    if b"PK\x05\x06" in data or data.startswith(b"PK\x03\x04"):
        yield from _zip(data, budget)
    if not tar:
        yield from _streams(data, budget)


def _tar(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    import io
    import tarfile

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
                if member.isreg():
                    budget.take(member.size)
                    file = archive.extractfile(member)
                    content = file.read() if file is not None else b""
                yield "\n".join(names), content
    except (tarfile.TarError, OSError, EOFError, ValueError, ArithmeticError, LookupError, MemoryError) as error:
        raise Unreadable(f"a tar archive in it can't be read whole ({type(error).__name__})") from error


def _zip(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    import io
    import lzma
    import struct
    import zipfile
    import zlib

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
                yield entry.filename, content + b"\n" + entry.comment + b"\n" + entry.extra
    except damaged as error:
        if data.startswith(b"PK\x03\x04"):
            raise Unreadable(f"a zip archive in it can't be read whole ({type(error).__name__})") from error


def _streams(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    """Everything that looks like the beginning of compressed data, wherever it stands (PNG, PDF, after a file)."""
    end = 0
    tried = 0
    for found in _STREAM.finditer(data):
        at = found.start()
        if at < end:
            continue
        tried += 1
        if tried > MAX_STREAMS:
            if len(data) < 1024 * MAX_STREAMS:
                raise Refused(f"a file in it has over {MAX_STREAMS} compressed streams")
            tried = -len(data)  # so many beginnings are chance in a file of this size
        content, used, whole = _inflate(data, at, budget)
        if content:
            end = at + used
            yield "stream", content
        if at == 0 and not whole and _BEGINNING.match(data):
            raise Unreadable("compressed data in it can't be read whole")


def _inflate(data: bytes, at: int, budget: Budget) -> tuple[bytes, int, bool]:
    """Return (what came out, how many bytes went in, whether its end was reached)."""
    import bz2
    import lzma
    import zlib

    view = memoryview(data)[at:]
    head = bytes(view[:3])
    engine: Any = None
    if head == b"\x1f\x8b\x08":
        engine = zlib.decompressobj(31)
    elif head == b"BZh":
        engine = bz2.BZ2Decompressor()
    elif head == b"\xfd7z":
        engine = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=128 << 20)
    else:
        engine = zlib.decompressobj()
    parts = []
    size = 0
    used = 0
    step = 16384 if head[:1] in (b"\x1f", b"x") else 1024  # one KiB of the others may hold megabytes
    try:
        while used < len(view) and not engine.eof:
            block = view[used : used + step]
            out = engine.decompress(block)
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
