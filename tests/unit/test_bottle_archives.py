"""What is packed is read to its end, however large; what nothing here can read is refused, and says what it is."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottle.sidecars.egress.archives import Holds, Unpacking
from bottle.sidecars.egress.encodings import Unreadable
from bottle.sidecars.egress.passing import Reading
from bottle.sidecars.egress.search import find, find_in_body
from opsexec.far.known_values import KnownValues

SECRET = "tok-REAL-0123456789abcdef"
KNOWN = KnownValues({"TOKEN": SECRET})
SAID = f"the token is {SECRET}, as agreed".encode()
NOISE = random.Random(7).randbytes((1 << 20) + (200 << 10))
MUCH = b"".join(b"line %d of a long log\n" % at for at in range(400_000))  # over what an entry may unpack to in a view


def zipped(entries: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


class Pipe(io.BytesIO):
    """A file that can't go back: a zip written to it has its sizes behind the entries."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def streamed_zip(entries: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = Pipe()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def tarred(entries: Sequence[tuple[str, bytes]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def encrypted(archive: bytes) -> bytes:
    """The same archive whose entries say that they are encrypted."""
    data = bytearray(archive)
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        found = data.find(signature)
        while found >= 0:
            data[found + at] |= 1
            found = data.find(signature, found + 4)
    return bytes(data)


def packed_otherwise(archive: bytes, method: int) -> bytes:
    data = bytearray(archive)
    data[8:10] = data[data.find(b"PK\x01\x02") + 10 : data.find(b"PK\x01\x02") + 12] = struct.pack("<H", method)
    return bytes(data)


def levelled(packed: bytes) -> bytes:
    """The same gzip with a compression level and a system that nobody has."""
    return packed[:8] + b"\x7b\x7b" + packed[10:]


def versioned(archive: bytes) -> bytes:
    """The same zip whose first entry claims a version of its own."""
    return archive[:4] + b"\x7b\x7b" + archive[6:]


def form(content: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return b"--x9\r\n" + head + b"1\r\n--x9\r\n" + head + content + b"\r\n--x9--\r\n"


def npm(content: bytes) -> bytes:
    return json.dumps({"name": "p", "_attachments": {"p.tgz": {"data": base64.b64encode(content).decode()}}}).encode()


def passed(body: bytes, block: int = 50_000) -> tuple[int, str]:
    """How many bytes go on, and why no more; of what comes out no more than one layer is looked through."""
    unpacking = Unpacking(KNOWN, find)
    at = 0
    try:
        for at in range(0, len(body), block):
            unpacking.feed(body[at : at + block])
        unpacking.feed(b"")
    except Holds as error:
        return at, f"the body holds the value of {error.name}"
    except Unreadable as error:
        return at, f"the body can't be read: {error}"
    return len(body), ""


LATE = {
    "zip": zipped([("a", NOISE), ("b", SAID)]),
    "zip of a pipe": streamed_zip([("a", NOISE), ("b", SAID)]),
    "stored zip of a pipe": streamed_zip([("a", NOISE), ("b", gzip.compress(SAID))], zipfile.ZIP_STORED),
    "zip of bzip2": zipped([("a", NOISE), ("b", SAID)], zipfile.ZIP_BZIP2),
    "zip behind something": b"#!/bin/sh\n" + zipped([("a", NOISE), ("b", SAID)]),
    "tar.gz": gzip.compress(tarred([("a", NOISE), ("b", SAID)])),
    "tar.xz": lzma.compress(tarred([("a", NOISE), ("b", SAID)]), preset=0),
    "tar.bz2": bz2.compress(tarred([("a", NOISE), ("b", SAID)])),
    "tar of gzip": tarred([("a", NOISE), ("b", gzip.compress(SAID))], tarfile.PAX_FORMAT),
    "old tar of gzip": tarred([("a", NOISE), ("b", gzip.compress(SAID))], tarfile.USTAR_FORMAT),
    "zip in tar.gz": gzip.compress(tarred([("a", NOISE), ("b.zip", zipped([("c", SAID)]))])),
    "second member": gzip.compress(NOISE) + gzip.compress(SAID),
    "gzip and a zip behind it": gzip.compress(NOISE) + zipped([("c", SAID)]),
    "wrong checksum": gzip.compress(NOISE) + gzip.compress(SAID)[:-8] + b"\0" * 8,
    "gzip that breaks off": gzip.compress(NOISE + SAID)[:-9],
    "form": form(gzip.compress(NOISE + SAID)),
    "npm publish": npm(gzip.compress(tarred([("a", NOISE), ("b", SAID)]))),
    "npm publish, something before it": npm(b"x" + gzip.compress(tarred([("a", NOISE), ("b", SAID)]))),
    "another level named": gzip.compress(NOISE) + levelled(gzip.compress(SAID)),
    "gzip of another level": levelled(gzip.compress(NOISE + SAID)),
    "zip of a late version": versioned(zipped([("a", NOISE), ("b", SAID)])),
    "ar, as a deb is": b"!<arch>\n" + b"x" * 60 + lzma.compress(NOISE, preset=0) + b"y" * 60 + lzma.compress(SAID),
}


@pytest.mark.parametrize("name", LATE)
def test_a_value_far_into_an_archive_is_found_before_it_has_left(name: str) -> None:
    """DL14, DL18."""
    body = LATE[name]
    went, refused = passed(body)
    assert refused == "the body holds the value of TOKEN"
    assert went < len(body)


@pytest.mark.parametrize(
    "body",
    [
        zipped([("large", MUCH), ("b", SAID)]),
        zipped([("large", MUCH + SAID)]),
        gzip.compress(tarred([("large", MUCH), ("b", SAID)])),
    ],
)
def test_a_value_behind_a_large_entry_of_a_small_body_is_found(body: bytes) -> None:
    assert len(MUCH) > 8 << 20
    assert find_in_body(KNOWN, body) == "TOKEN"


HIDDEN = gzip.compress(SAID)
UNREADABLE = {
    "an encrypted zip archive": encrypted(zipped([("a", SAID)])),
    "a zip archive that is packed in a way that isn't read here": packed_otherwise(zipped([("a", SAID)]), 9),
    "a 7z archive": b"7z\xbc\xaf\x27\x1c\0\4" + NOISE[:200],
    "a rar archive": b"Rar!\x1a\x07\1\0" + NOISE[:200],
    "lz4 data": b"\x04\x22\x4d\x18\x64\x40" + NOISE[:200],
    "lzma data": lzma.compress(NOISE[:200], format=lzma.FORMAT_ALONE),
    "an encrypted message": b"-----BEGIN PGP MESSAGE-----\n\nhQEMA" + b"A" * 100,
    "an encrypted file": b"Salted__" + NOISE[:200],
    "packed data that breaks off": bz2.compress(NOISE[:2000])[:-4],
    "packed data that is damaged": gzip.compress(b"x")[:10] + b"\x07" * 200,
}


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("around", [lambda each: each, form, lambda each: tarred([("good", b"1" * 600), ("it", each)])])
def test_what_is_packed_so_that_nothing_reads_it_is_refused(what: str, around: Callable[[bytes], bytes]) -> None:
    """DL14: an entry that can't be read is no way past the gate."""
    body = around(UNREADABLE[what])
    with pytest.raises(Unreadable, match=what):
        find_in_body(KNOWN, body)
    assert passed(body)[1] == f"the body can't be read: {what}"


def test_a_value_in_lzma_data_is_named() -> None:
    """What isn't read as it passes is, of a small body, looked into all the same."""
    assert find_in_body(KNOWN, lzma.compress(SAID, format=lzma.FORMAT_ALONE)) == "TOKEN"


@pytest.mark.parametrize("what", ["an encrypted zip archive", "a 7z archive", "an encrypted file"])
def test_an_encrypted_archive_in_base64_is_refused_too(what: str) -> None:
    with pytest.raises(Unreadable, match=what):
        find_in_body(KNOWN, npm(UNREADABLE[what]))
    assert passed(b'{"text": "' + b"a word " * 300_000 + b'"}' + npm(UNREADABLE[what]))[1].endswith(what)


def test_a_value_is_named_also_where_something_else_can_t_be_read() -> None:
    assert find_in_body(KNOWN, zipped([("a", SAID)]) + encrypted(zipped([("b", b"1")]))) == "TOKEN"


def test_a_small_archive_that_unpacks_to_far_more_is_refused() -> None:
    """PX31."""
    with pytest.raises(Unreadable, match="far more than it is"):
        find_in_body(KNOWN, gzip.compress(gzip.compress(bytes(1 << 28), 9), 9))


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, lambda each: zipped([("a", each)], zipfile.ZIP_BZIP2)])
@pytest.mark.parametrize("missing", [1, 20])
def test_of_what_is_read_in_blocks_nothing_leaves_before_its_block_is_read(
    pack: Callable[[bytes], bytes], missing: int
) -> None:
    """The receiver could make up for the few bytes at the end that never came."""
    body = pack(SAID)
    reading = Reading(KNOWN, "identity")
    went = sum(len(block) for at in range(len(body) - missing) for block in reading.feed(body[at : at + 1]))
    assert went < 40, "no more than it takes to see what it is"
    reading.feed(body[-missing:])
    reading.feed(b"")
    assert reading.refused == "the body holds the value of TOKEN"


@pytest.mark.parametrize("what", ["an encrypted zip archive", "a 7z archive", "a rar archive"])
def test_a_small_archive_is_refused_by_its_head(what: str) -> None:
    reading = Reading(KNOWN, "identity")
    went = sum(len(block) for each in UNREADABLE[what] for block in reading.feed(bytes([each])))
    assert reading.refused == f"the body can't be read: {what}"
    assert went < 40


def test_so_many_decoders_at_once_and_no_more() -> None:
    """PX31: the memory they take has a bound, and comes back."""
    body = lzma.compress(NOISE, preset=0)
    for _ in range(2):
        begun = [Unpacking(KNOWN, find) for _ in range(8)]
        with ExitStack() as refused:
            refused.enter_context(pytest.raises(Unreadable, match="too much is read already"))
            for each in begun:
                each.feed(body[:1000])
        del begun
    whole = Unpacking(KNOWN, find)
    whole.feed(body)


def test_archives_in_archives_have_a_bound() -> None:
    body = b"x"
    for _ in range(12):
        body = zipped([("a", body)], zipfile.ZIP_STORED)
    with pytest.raises(Unreadable, match="archives in archives"):
        find_in_body(KNOWN, body)


def test_without_known_values_nothing_is_refused() -> None:
    assert find_in_body(KnownValues({}), UNREADABLE["an encrypted zip archive"]) is None
    reading = Reading(KnownValues({}), "identity")
    reading.feed(UNREADABLE["an encrypted zip archive"])
    assert reading.refused == ""


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (LATE["zip"], "identity", "the body holds the value of TOKEN"),
        (gzip.compress(LATE["tar.gz"]), "gzip", "the body holds the value of TOKEN"),
        (b"x" * 9, "gzip", "the body can't be read: a body that isn't in its content-encoding"),
        (encrypted(LATE["zip"]), "identity", "the body can't be read: an encrypted zip archive"),
        (
            zipped([("a", b"1"), ("b", base64.b64encode(base64.b64encode(SAID)))]),
            "identity",
            "the body holds the value of TOKEN",
        ),
    ],
)
def test_a_body_that_passes_is_read_so(body: bytes, encoding: str, reason: str) -> None:
    reading = Reading(KNOWN, encoding)
    went = sum(len(each) for at in range(0, len(body), 60_000) for each in reading.feed(body[at : at + 60_000]))
    reading.feed(b"")
    assert (reading.refused, went < len(body)) == (reason, True)


ORDINARY = {
    "zip": zipped([("a", NOISE), ("b/", b""), ("c", b"text")]),
    "stored zip": zipped([("a", NOISE)], zipfile.ZIP_STORED),
    "zip of a pipe": streamed_zip([("a", NOISE), ("c", b"text")]),
    "stored zip of a pipe": streamed_zip([("a", NOISE)], zipfile.ZIP_STORED),
    "empty zip": zipped([]),
    "tar": tarred([("a" * 150, NOISE), ("dir/b", b"")]),
    "tar.gz": gzip.compress(tarred([("a", NOISE)], tarfile.PAX_FORMAT)),
    "first part of an upload in parts": zipped([("a", NOISE)])[: 1 << 20],
    "further part of an upload in parts": zipped([("a", NOISE)])[1 << 19 :],
    "part of a tar.gz": gzip.compress(tarred([("a", NOISE)]))[: 1 << 20],
    "well packed": zipped([("log", MUCH)]),
    "noise": NOISE,
    "a chat about archives": b'{"text": "H4sIAAAAAAAAA0vOzy0oSi0uTk1RKE\\nAA... and PK\x03\x04, says file(1)"}',
    "base64 of noise": npm(NOISE),
    "form": form(NOISE),
    "form with a broken gzip": form(b"\x1f\x8b\x08 is how it begins"),
    "much base64 of noise": b'{"image": "' + base64.b64encode(NOISE) + b'", "hashes": "' + b"ab12" * 8000 + b'"}',
    "concatenated": gzip.compress(b"1") * 3000,
    "words": b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_ordinary_goes_on_as_it_is(name: str) -> None:
    """DL20."""
    body = ORDINARY[name]
    assert passed(body) == (len(body), "")
    if len(body) < 1 << 18:
        assert find_in_body(KNOWN, body) is None


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LATE)), st.integers(3000, 300_000))
def test_where_the_blocks_are_cut_makes_no_difference(name: str, block: int) -> None:
    body = LATE[name]
    assert passed(body, block)[1] == "the body holds the value of TOKEN"


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=3000),
    st.sampled_from([b"", b"PK\3\4\x14\0\0\0\0\0", b"\x1f\x8b\x08\0\0\0\0\0\0\3", b"BZh91AY&SY"]),
)
def test_nothing_that_is_sent_breaks_the_reading(data: bytes, beginning: bytes) -> None:
    try:
        find_in_body(KNOWN, beginning + data)
    except Unreadable:
        pass
    assert find(KNOWN, SAID) == "TOKEN"
