"""An archive of a push is read to where its bytes end, whatever its own directory, headers and checksums say."""

from __future__ import annotations

import base64
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import pytest

from bottle.sidecars.egress.search import find_in_body
from opsexec.far import git_archives
from opsexec.far.git_archives import Budget, members
from opsexec.far.git_run import Refused
from opsexec.far.git_scan import Examination
from opsexec.far.known_values import KnownValues

SECRET = "tok-REAL-0123456789abcdef"
KNOWN = KnownValues({"TOKEN": SECRET})
SAID = f"the token is {SECRET}, as agreed".encode()
PACKED = gzip.compress(SAID)
FOUND = "it holds TOKEN of this bottle"


def examine(data: bytes) -> str | None:
    return Examination(KNOWN, lambda label, text: None).examine("x", data)


def tarred(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.type = len(content), kind
        archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def told_of_less(archive: bytes, content: bytes, size: int) -> bytes:
    """The same zip, which says that its entry has so many bytes, and the checksum of these."""
    data = bytearray(archive)
    for magic, at in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        head = data.index(magic) + at
        struct.pack_into("<I", data, head, zlib.crc32(content[:size]))
        struct.pack_into("<I", data, head + 8, size)
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as read:
        assert read.read("said") == content[:size], "who goes by the directory has only this"
    return bytes(data)


def damaged(packed: bytes, back: int) -> bytes:
    data = bytearray(packed)
    data[-back] ^= 1
    return bytes(data)


def small(content: bytes, bits: int, level: int = 9) -> bytes:
    """zlib data with a window of so many bits, as what packs little asks for."""
    packer = zlib.compressobj(level, zlib.DEFLATED, bits)
    return packer.compress(content) + packer.flush()


LARGE = b"".join(b"%06d\n" % each for each in range(40_000)) + SAID
HIDDEN = {
    "an entry of a type that tar makes a file of": tarred("a", PACKED, b"Z"),
    "what stands behind a directory's head": tarred("a", PACKED, tarfile.DIRTYPE),
    "behind the end of a tar": tarred("a", b"hi") + PACKED,
    "behind a head that is none": tarred("a", b"hi")[:1024] + b"\xff" * 512 + tarred("b", PACKED),
    "an entry that a zip's directory leaves out": zipped("said", SAID).partition(b"PK\x01\x02")[0] + zipped("a", b"x"),
    "an entry of a zip without a directory": b"MZ" + zipped("said", SAID).partition(b"PK\x01\x02")[0],
    "what a zip's directory says less of": told_of_less(zipped("said", b"12345" + SAID), b"12345" + SAID, 5),
    "a stream inside a file whose checksum is wrong": b"%PDF-1.4\nstream\n" + damaged(zlib.compress(SAID), 1) + b"\n",
    "a gzip stream behind a line whose checksum is wrong": b"\n" + damaged(PACKED, 5),
    "a large stream whose checksum is wrong": b"%PDF-1.4\nstream\n" + damaged(zlib.compress(LARGE, 1), 1) + b"\n",
}
HIDDEN |= {f"zlib data with a window of {bits} bits": small(SAID, bits) for bits in range(9, 15)}
HIDDEN |= {
    "a stream with a small window in PDF": b"%PDF-1.4\nstream\n" + small(SAID, 12, 3) + b"\n",
    "a stream with a small window in PDF of Windows": b"%PDF-1.4\r\nstream\r\n" + small(SAID, 9, 1) + b"\r\n",
    "a stream with a small window in PNG": b"\x89PNG\r\n\x1a\n\0\0\0\x40IDAT" + small(SAID, 13),
    "zlib data with a small window in base64": base64.b64encode(small(SAID, 10)),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_an_archive_does_not_tell_of_is_read_too(name: str) -> None:
    assert examine(HIDDEN[name]) == FOUND


LZMA = lzma.compress(SAID, lzma.FORMAT_ALONE)


def test_what_lzma_writes_is_read_and_a_chance_of_it_is_refused_nowhere() -> None:
    told = LZMA[:5] + len(SAID).to_bytes(8, "little") + LZMA[13:]
    for data in (LZMA, told, LZMA + b"more", told[:-3]):
        assert examine(data) == FOUND
        assert examine(base64.b64encode(data)) == FOUND
    large = LZMA[:1] + (256 << 20).to_bytes(4, "little") + LZMA[5:]
    with pytest.raises(Refused, match="memory"):
        examine(large)
    for chance in (b"]\0\0\3\0\0\0\x15" + bytes(6) + b"\6\xaa" * 20, b"]\0\0" + bytes(40), b"]\0\0"):
        assert examine(chance + b"%PDF") is None
        assert examine(base64.b64encode(chance)) is None


@pytest.mark.parametrize("beginning", [b"\x04\x22\x4d\x18", b"x" * 257 + b"ustar", b"BZh91AY&SY"])
def test_a_body_that_only_begins_as_an_archive_hides_no_stream(beginning: bytes) -> None:
    """Of a way to read something no beginning is refused; then what stands behind it is read as ever."""
    found = list(members(beginning + b"%PDF stream\n" + zlib.compress(SAID), Budget(1 << 20, 1 << 20), strict=False))
    assert any(SAID in content for _, content in found)
    with pytest.raises(Refused):
        examine(beginning + b"%PDF stream\n" + zlib.compress(SAID))


@pytest.mark.parametrize("size", [14, 20, len(LZMA)])
def test_lzma_data_hides_no_stream_behind_it(size: int) -> None:
    beginning = lzma.compress(b"nothing", lzma.FORMAT_ALONE)[:size]
    assert examine(beginning + b"%PDF stream\n" + zlib.compress(SAID)) == FOUND


def test_the_same_holds_for_egress() -> None:
    """A reader of PDF or PNG minds neither the checksum of a stream nor what stands at byte 257."""
    stream = b"%PDF-1.4\nstream\n" + damaged(zlib.compress(SAID), 1) + b"\n"
    assert find_in_body(KNOWN, stream) == "TOKEN"
    assert find_in_body(KNOWN, (b"%PDF-1.4\n%" + b"x" * 247 + b"ustar\n" + zlib.compress(SAID))) == "TOKEN"


def test_what_a_zip_tells_of_rightly_counts_once() -> None:
    archive = zipped("a", b"x" * 600)
    assert [len(content) for _, content in members(archive, Budget(1000, 900))] == [0, 602]


def test_what_a_text_often_has_counts_as_no_beginning() -> None:
    text = b"".join(b"chrX\t%d\tH\r\n" % each for each in range(5000)) + b'print(String("(S"), hC)' * 5000
    assert examine(text) is None


def test_of_a_zip_that_is_stored_in_a_zip_the_entries_are_read_as_its_own() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner.jar", zipped("said", SAID))
        archive.writestr("other.jar", zipped("said", b"nothing much"))
    names = [name for name, _ in members(out.getvalue(), Budget(1 << 20, 1 << 20))]
    assert names == ["zip comment", "inner.jar", "other.jar"]
    assert examine(out.getvalue()) == FOUND


def many(entries: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in range(entries):
            archive.writestr(f"{each}", b"content")
    return out.getvalue()


def named_often(entries: int) -> bytes:
    """A zip of one entry, which its directory names so often."""
    data = many(1)
    directory, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    row = data[directory:end]
    size = struct.pack("<HHII", entries, entries, entries * len(row), directory)
    return data[:directory] + row * entries + data[end : end + 8] + size + b"\0\0"


def tars(entries: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for each in range(entries):
            archive.addfile(tarfile.TarInfo(f"{each}"))
    return out.getvalue()


def headless(entries: int) -> bytes:
    """A zip's entries without a directory, behind something else."""
    return b"behind " + many(entries).partition(b"PK\x01\x02")[0]


@pytest.mark.parametrize(
    ("fits", "over"),
    [(many, named_often), (headless, headless), (tars, tars)],  # Python 3.13 reads no entry that is named twice
    ids=["a zip's directory", "a zip's entries without a directory", "a tar"],
)
def test_an_archive_has_so_many_entries_and_no_more(
    fits: Callable[[int], bytes], over: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_archives, "MAX_MEMBERS", 10)
    assert len(list(members(fits(10), Budget(1 << 20, 1 << 20)))) >= 10
    with pytest.raises(Refused, match="over 10 entries"):
        list(members(over(11), Budget(1 << 20, 1 << 20)))


def test_chance_beginnings_of_streams_are_counted_in_a_small_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_archives, "MAX_STREAMS", 4)
    beginnings = b"\x78\x9c\xff\xff " * 5
    assert examine(beginnings + b" " * 4096 + PACKED) == FOUND
    with pytest.raises(Refused, match="over 4 compressed streams"):
        examine(beginnings)
