"""A body on its way out: nothing of it leaves before it was judged, and what was judged isn't held back."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable, Iterable

import pytest

from bottle.sidecars.egress import archives, search
from bottle.sidecars.egress.passing import Reading
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


def sent(blocks: Iterable[bytes]) -> tuple[bytes, str]:
    """What has left of a body once it has ended, and why no more."""
    reading = Reading(KNOWN, "identity")
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
