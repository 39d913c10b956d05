"""A body on its way out: nothing of it leaves before it was judged, and what was judged isn't held back."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import random
import zlib
from collections.abc import Callable, Iterable

import pytest

from bottle.sidecars.egress import archives, search
from bottle.sidecars.egress.encodings import Unreadable
from bottle.sidecars.egress.passing import ANOTHER_LENGTH, Masking, Reading, masked, may_have_body
from opsexec.far.known_values import KnownValues

SECRET = "tok-REAL-0123456789abcdef"
KNOWN = KnownValues({"TOKEN": SECRET})
FOUND = "the body holds the value of TOKEN"
NOISE = random.Random(7).randbytes(1 << 20)


def hexed(data: bytes) -> bytes:
    return data.hex().encode()


def escaped(data: bytes) -> bytes:
    return b"".join(b"\\u%04x" % byte for byte in data)


LAYERS: dict[str, tuple[Callable[[bytes], bytes], ...]] = {
    "base64 twice": (base64.b64encode, base64.b64encode),
    "base64 in hex": (base64.b64encode, hexed),
    "hex four times": (hexed, hexed, hexed, hexed),
    "base64 in escapes": (base64.b64encode, escaped),
    "gzip in base64": (gzip.compress, base64.b64encode),
    "bzip2 in base64": (bz2.compress, base64.b64encode),
    "xz in base64": (lzma.compress, base64.b64encode),
    "gzip in base64 twice": (gzip.compress, base64.b64encode, base64.b64encode),
}


def sent(blocks: Iterable[bytes], encoding: str = "identity", length: str = "") -> tuple[bytes, str]:
    """What has left of a body once it has ended, and why no more."""
    reading = Reading(KNOWN, encoding, length)
    went = b"".join(part for each in (*blocks, b"") for part in reading.feed(each))
    return went, reading.refused


@pytest.mark.parametrize("before", [b"", b"x" * 400 + b" ", b"word " * 4000], ids=["first", "small", "large"])
@pytest.mark.parametrize("size", [1 << 16, 11])
@pytest.mark.parametrize("layers", LAYERS)
def test_a_value_in_several_layers_hasn_t_left_whole_when_it_is_found(layers: str, size: int, before: bytes) -> None:
    """DL14: in blocks of any size, wherever in the beginning of a body."""
    value = SECRET.encode()
    for layer in LAYERS[layers]:
        value = layer(value)
    body = b"\n" + value + b"\n"
    blocks = [body[at : at + size] for at in range(0, len(body), size)]
    went, refused = sent([*([before] if before else []), *blocks, b"z"])
    assert refused == FOUND
    assert value not in went


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_is_searched_as_a_whole_at_its_end(encoding: str) -> None:
    """A stream of a PDF is read from where it begins: that is far before the last block."""
    body = b"%PDF-1.4\nstream\n" + zlib.compress(NOISE[:100_000].hex().encode() + SECRET.encode()) + b"\nendstream\n"
    sent_as = gzip.compress(body, 0) if encoding == "gzip" else body
    _, refused = sent(cut(sent_as, 4096), encoding)
    assert refused == FOUND


def test_what_was_judged_leaves_at_once_however_small_the_blocks_are() -> None:
    """A stream of events, or an upload as slow as what it is of, doesn't wait for more of it."""
    reading = Reading(KNOWN, "identity")
    for at in range(300):
        event = b'data: {"step": %d, "text": "a few words"}\n\n' % at
        assert reading.feed(event) == [event]


def test_a_search_that_fails_refuses_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """PX30: whatever it fails with, nothing more leaves."""
    reading = Reading(KNOWN, "identity")
    assert reading.feed(b"a beginning, ") == [b"a beginning, "]

    def fake_find(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(search, "find", fake_find)
    assert reading.feed(b"some more") == []
    assert reading.refused == "the body could not be judged (ZeroDivisionError)"
    monkeypatch.undo()
    assert reading.feed(b"the rest") == reading.feed(b"") == []


def test_base64_in_json_is_read_also_where_a_line_break_is_cut_in_two() -> None:
    packed = gzip.compress(random.Random(8).randbytes(3000) + SECRET.encode())
    text = json.dumps({"file": "@ " + base64.encodebytes(packed).decode()}).encode()
    body = b"word " * 220_000 + text
    for escape in (body.index(rb"\n", 1_100_000), body.rindex(rb"\n")):
        assert sent([body[: escape + 1], body[escape + 1 :]])[1] == FOUND


@pytest.mark.parametrize("layers", [1, 2])
def test_of_a_block_of_bzip2_in_base64_nothing_leaves_before_it_is_read(layers: int) -> None:
    body = bz2.compress(NOISE[:899_000])
    body = base64.encodebytes(body)
    if layers == 2:
        body = base64.b64encode(body)
    unpacking = archives.Unpacking(KNOWN, search.find)
    for at in range(0, len(body), 60_000):
        unpacking.feed(body[at : at + 60_000])
        assert unpacking.lag >= len(body)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("inner", [b"%s", b"x" * 3000 + b" %s behind"], ids=["alone", "behind"])
@pytest.mark.parametrize("layers", ["plain", "base64 twice"])
def test_a_value_in_an_encoded_body_is_found(size: int, inner: bytes, layers: str) -> None:
    value = SECRET.encode()
    for layer in LAYERS.get(layers, ()):
        value = layer(value)
    body = gzip.compress(inner % value)
    went, refused = sent(cut(body, size), "gzip")
    assert refused == FOUND
    assert went != body


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_encoded_body_passes_as_it_is(size: int) -> None:
    body = gzip.compress(b"an ordinary text, " * 200)
    assert sent(cut(body, size), "gzip") == (body, "")


def test_a_value_beside_what_is_encoded_is_found_too() -> None:
    """What stands in the body as it is sent: a comment of gzip's own is nothing that comes out of it."""
    body = gzip.compress(b"text")
    commented = body[:3] + b"\x10" + body[4:10] + SECRET.encode() + b"\0" + body[10:]
    assert sent([commented], "gzip") == (b"", FOUND)


def test_an_encoded_body_that_is_cut_short_or_none_is_refused() -> None:
    body = gzip.compress(b"an ordinary text, " * 200)
    went, refused = sent([body[:-9]], "gzip")
    assert (went, bool(refused)) == (body[:-9], True)
    assert refused.startswith("the body ")
    assert sent([b"no gzip at all"], "gzip")[0] == b""
    assert sent([b"no gzip at all"], "gzip")[1]


@pytest.mark.parametrize(
    ("blocks", "length", "passed", "refused"),
    [
        ([b" - ", b" -"], "5", b" -  -", ""),
        ([b" - "], "5", b" - ", ANOTHER_LENGTH),
        ([b" - ", b" - "], "5", b" -  - ", ANOTHER_LENGTH),
        ([], "5", b"", ANOTHER_LENGTH),
        ([], "0", b"", ""),
        ([b" "], "0", b" ", ANOTHER_LENGTH),
        ([b" - "], "", b" - ", ""),
    ],
)
def test_a_body_is_as_long_as_it_says(blocks: list[bytes], length: str, passed: bytes, refused: str) -> None:
    assert sent(blocks, "identity", length) == (passed, refused)


def test_a_value_far_into_an_encoded_body_is_found_by_one_layer() -> None:
    """DL14: behind the beginning that is searched as a whole, also where it is cut by what decodes it."""
    for size in (60_000, 1 << 22):
        body = gzip.compress(b"word " * 220_000 + SECRET.encode() + b" word" * 40_000, 1)
        assert sent(cut(body, size), "gzip")[1] == FOUND
        body = gzip.compress(NOISE + SECRET.encode(), 1)
        went, refused = sent(cut(body, size), "gzip")
        assert refused == FOUND
        assert len(went) < len(body)


@pytest.mark.parametrize(
    ("pack", "encoding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate"), (gzip.compress, "identity")]
)
def test_what_follows_a_value_far_into_a_packed_body_stays(pack: Callable[[bytes, int], bytes], encoding: str) -> None:
    body = pack(NOISE.hex().encode() + b"\n" + SECRET.encode() + b"\n" + NOISE.hex().encode(), 1)
    went, refused = sent(cut(body, 60_000), encoding)
    assert refused == FOUND
    assert len(went) < len(body) / 2 + 1000


def test_what_follows_a_value_in_the_same_block_hides_it_no_more() -> None:
    value = base64.b64encode(base64.b64encode(SECRET.encode()))
    body = gzip.compress(value + b" word" * 1_000_000)
    assert sent([body], "gzip") == (b"", FOUND)


def test_of_an_archive_behind_the_beginning_nothing_leaves_before_it_is_read() -> None:
    """DL14: a value at its end is found once all of it came; till then it waits."""
    archive = base64.b64encode(bz2.compress(NOISE[:300_000] + SECRET.encode()))
    went, refused = sent(cut(b"word " * 220_000 + archive + b" behind", 60_000))
    assert refused == FOUND
    assert archive[:100] not in went


@pytest.mark.parametrize("size", [60_000, 1 << 20])
def test_what_waited_for_an_archive_to_be_read_leaves_in_its_order(size: int) -> None:
    body = b"before " + base64.b64encode(bz2.compress(NOISE[:60_000])) + b" behind"
    reading = Reading(KNOWN, "identity")
    went = [part for each in cut(body, size) for part in reading.feed(each)]
    assert len(b"".join(went)) < len(body)
    last = reading.feed(b"")
    assert b"".join((*went, *last)) == body
    assert (all((*went, *last)), reading.refused) == (True, "")


def test_without_a_value_to_look_for_all_passes() -> None:
    reading = Reading(KnownValues({}), "identity")
    assert reading.feed(b"abc") == [b"abc"]
    assert reading.feed(b"") == []
    assert reading.refused == ""


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_token_in_an_answer_is_masked_whatever_it_is_encoded_with(encoding: str, size: int) -> None:
    text = b"a " * 300 + SECRET.encode() + b" b" * 300 + b" tok-REAL"
    body = text if encoding == "identity" else gzip.compress(text)
    masking = Masking(KNOWN, encoding)
    parts = [part for each in (*cut(body, size), b"") for part in masking.feed(each)]
    assert b"".join(parts) == text.replace(SECRET.encode(), b"*" * len(SECRET)) == masked(KNOWN, text)
    assert all(parts)


def test_an_answer_that_is_cut_short_ends_the_connection() -> None:
    body = gzip.compress(b"an ordinary text, " * 200)
    masking = Masking(KNOWN, "gzip")
    masking.feed(body[:-9])
    with pytest.raises(Unreadable):
        masking.feed(b"")


@pytest.mark.parametrize(
    ("method", "status", "body"),
    [("HEAD", 200, False), ("GET", 204, False), ("GET", 304, False), ("GET", 200, True), ("POST", 404, True)],
)
def test_which_answers_have_a_body(method: str, status: int, body: bool) -> None:
    assert may_have_body(method, status) == body
