"""What stands in a container and in no entry of it is read too, and a header that lies hides nothing."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottle.sidecars.egress.archives import Holds, Unpacking
from bottle.sidecars.egress.encodings import Unreadable
from bottle.sidecars.egress.engines import PIECE, Inflate
from bottle.sidecars.egress.search import find, find_in_body
from opsexec.far.git_archives import Budget, members
from opsexec.far.git_archives import Unreadable as NotWhole
from opsexec.far.known_values import KnownValues

SECRET = "tok-REAL-0123456789abcdef"
KNOWN = KnownValues({"TOKEN": SECRET})
SAID = f"the token is {SECRET}, as agreed".encode()
PACKED = gzip.compress(SAID)
HELD = "the body holds the value of TOKEN"
WRONG_SIZE = "the body can't be read: a zip archive whose entry isn't of the size it says"
NOISE = random.Random(7).randbytes(5000)


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        archive.comment = comment
    return out.getvalue()


def with_size(archive: bytes, entry: int, size: Callable[[int], int]) -> bytes:
    """The same zip, one of whose local headers says another packed size; the directory says the right one."""
    data = bytearray(archive)
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        info = read.infolist()[entry]
    at = info.header_offset + 18
    data[at : at + 4] = struct.pack("<I", size(info.compress_size))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as read:
        assert SAID in read.read("said"), "a receiver that goes by the directory has it"
    return bytes(data)


def with_extra(archive_of: str, extra: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(archive_of)
        info.extra = extra
        archive.writestr(info, b"x")
    return out.getvalue()


def directory_at(archive: bytes) -> int:
    return archive.index(b"PK\x01\x02")


def gzip_with(flags: int, fields: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (
        b"\x1f\x8b\x08"
        + bytes([flags])
        + b"\0\0\0\0\0\xff"
        + fields
        + packer.compress(b"x")
        + packer.flush()
        + bytes(8)
    )


def tar_with(name: bytes = b"a", padding: bytes = b"") -> bytes:
    info = tarfile.TarInfo("a")
    info.size = 1
    head = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    head[: len(name)] = name
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + (b"x" + padding).ljust(512, b"\0") + bytes(1024)


def form(head: bytes = b'form-data; name="a"', behind: bytes = b"\r\n") -> bytes:
    return b"--x9\r\nContent-Disposition: " + head + b"\r\n\r\nhi\r\n--x9--" + behind


def passed(body: bytes, block: int) -> str:
    """Why it doesn't pass, "" where it does; what comes out is looked through in one layer."""
    unpacking = Unpacking(KNOWN, lambda *_: None)
    try:
        for at in range(0, len(body), block):
            unpacking.feed(body[at : at + block])
        unpacking.feed(b"")
    except Holds as error:
        return f"the body holds the value of {error.name}"
    except Unreadable as error:
        return f"the body can't be read: {error}"
    return ""


ONE = zipped({"a": NOISE})
IN_BASE64 = base64.b64encode(PACKED)
BESIDE = {
    "between entries": ONE[: directory_at(ONE)] + PACKED + zipped({"b": b"x"}),
    "in front of the directory": ONE[: directory_at(ONE)] + PACKED + bytes(64) + ONE[directory_at(ONE) :],
    "a zip's comment": zipped({"a": NOISE}, comment=PACKED),
    "an entry's name": zipped({IN_BASE64.decode(): b"x"}),
    "an entry's extra field": with_extra("a", struct.pack("<HH", 0x7777, len(PACKED)) + PACKED),
    "behind the head of a stored entry of no size": b"PK\x03\x04\x14\0" + bytes(24) + PACKED,
    "a comment that breaks off": b"PK\x03\x04\x14\0" + bytes(24) + b"PK\x05\x06" + bytes(16) + b"\xff\xff" + PACKED,
    "a name that breaks off": b"PK\x03\x04\x14\0" + bytes(20) + b"\xff\xff\0\0" + PACKED,
    "a gzip's extra field": gzip_with(4, struct.pack("<H", len(PACKED)) + PACKED),
    "a gzip's name": gzip_with(8, IN_BASE64 + b"\0"),
    "a gzip's comment": gzip_with(16, IN_BASE64 + b"\0"),
    "a gzip's name without an end": gzip_with(8, IN_BASE64 + b"x" * (2 * PIECE)),
    "a part's head": form(b'form-data; name="f"; filename="' + IN_BASE64 + b'"'),
    "a part's head that breaks off": form(b'form-data; filename="' + IN_BASE64 + b'"').partition(b"\r\n\r\n")[0],
    "behind a form": form(behind=b"\r\n" + PACKED),
    "behind a form, with an empty line": form(behind=b"\r\n\r\n" + PACKED + b"\r\n\r\n"),
    "a tar's name": tar_with(name=PACKED),
    "a tar's padding": tar_with(padding=PACKED),
}


@pytest.mark.parametrize("block", [1, 300, 1 << 20])
@pytest.mark.parametrize("where", BESIDE)
def test_what_is_packed_beside_the_entries_is_read_too(where: str, block: int) -> None:
    """DL14."""
    assert passed(BESIDE[where], block) == HELD


METHODS = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
@pytest.mark.parametrize("method", METHODS)
def test_an_entry_that_says_it_is_larger_hides_none_behind_it(method: int, block: int) -> None:
    body = with_size(zipped({"a": b"A" * 100, "said": SAID}, method), 0, lambda _: 0x7FFFFF00)
    assert passed(body, block) == HELD


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("entry", [0, 1])
@pytest.mark.parametrize("size", [lambda _: 0, lambda _: 1, lambda said: said // 2, lambda said: said - 1])
def test_an_entry_that_says_it_is_smaller_is_refused(
    entry: int, size: Callable[[int], int], method: int, block: int
) -> None:
    contents = {"said": SAID} if entry == 0 else {"a": b"A" * 100, "said": SAID}
    body = with_size(zipped(contents, method), entry, size)
    assert passed(body, block) in (HELD, WRONG_SIZE)


def test_a_stored_entry_that_says_it_is_empty_is_read() -> None:
    data = bytearray(zipped({"a.gz": PACKED}, zipfile.ZIP_STORED))
    data[18:22] = bytes(4)
    assert passed(bytes(data), 1 << 20) == HELD


def test_an_entry_that_is_empty_and_compressed_is_ordinary() -> None:
    data = bytearray(zipped({"dir/": b"", "b": b"x"}))
    data[8:10] = struct.pack("<H", zipfile.ZIP_DEFLATED)
    for block in (1, 50, 1 << 20):
        assert passed(bytes(data), block) == ""


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 100, 3 * PIECE + 7])
@pytest.mark.parametrize("byte", [b"a", b"ab"])
def test_deflate_ends_with_its_last_byte_however_much_comes_out(size: int, byte: bytes) -> None:
    content = (byte * size)[:size]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    engine = Inflate()
    assert b"".join(engine.feed(packer.compress(content) + packer.flush())) == content
    assert engine.done
    assert passed(zipped({"a": content, "b": b"x"}), 1 << 20) == ""


def damaged(method: int) -> bytes:
    data = bytearray(zipped({"n": b"abc" * 200 + NOISE[:64]}, method))
    at = 31 + (11 if method == zipfile.ZIP_LZMA else 0)
    data[at : at + 9] = b"\xff" * 9
    return bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_entry_is_unreadable_whatever_packed_it(method: int) -> None:
    with pytest.raises(NotWhole, match="a zip archive in it can't be read whole"):
        list(members(damaged(method), Budget(1 << 24, 1 << 23)))
    with pytest.raises(Unreadable):
        find_in_body(KNOWN, damaged(method))


def test_a_tar_entry_of_less_than_no_bytes_takes_nothing_back() -> None:
    head = bytearray(tar_with()[:512])
    head[124:136] = b"\xff" * 11 + b"\x00"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    budget = Budget(1000, 1000)
    with pytest.raises(NotWhole):
        list(members(bytes(head) + bytes(1024), budget))
    assert budget.left <= 1000


WHOLE = [
    *(zipped({"n": b"abc" * 200, "m": b"x"}, method) for method in (0, 8, 12, 14)),
    tar_with(),
    gzip.compress(b"abc" * 99),
    bz2.compress(b"abc" * 99),
    lzma.compress(b"abc" * 99),
    gzip_with(28, b"\2\0aba\0b\0"),
    form(),
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.sampled_from([0, 1, 127, 128, 255])), min_size=1, max_size=8),
)
def test_whatever_is_wrong_in_an_archive_nothing_else_is_raised(body: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(body)
    for at, byte in changes:
        data[at % len(data)] = byte
    assert passed(bytes(data), 100) is not None
    try:
        find_in_body(KNOWN, bytes(data))
    except Unreadable:
        pass
    assert find(KNOWN, SAID) == "TOKEN"


ORDINARY = {
    "zip with a comment": zipped({"a": NOISE, "b": b"x"}, comment=b"made on a Sunday"),
    "zip of many": zipped({f"{at}/a": b"x" * at for at in range(600)}),
    "zip with gaps": zipped({"a": b"x"})[: directory_at(zipped({"a": b"x"}))] + bytes(4096) + zipped({"b": NOISE}),
    "gzip with a name": gzip_with(8, b"report-2026-11.tar\0"),
    "gzips with all fields": gzip_with(28, b"\6\0BC\2\0\1\2name\0a comment\0") * 300,
    "form": form(b'form-data; name="f"; filename="a photo.jpeg"\r\nContent-Type: image/jpeg', b"\r\n"),
    "form with a long end": form(behind=b"\r\n" + b"words behind it " * 20_000),
    "tar": tar_with() * 3,
}


@pytest.mark.parametrize("block", [100, 1 << 20])
@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_ordinary_beside_entries_goes_on(name: str, block: int) -> None:
    """DL20, benign."""
    assert passed(ORDINARY[name], block) == ""
