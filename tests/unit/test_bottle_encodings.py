"""Content encodings taken off a body: what is read of it, and what is refused as unreadable."""

from __future__ import annotations

import gzip
import zlib

import pytest

from bottle.sidecars.egress import encodings
from bottle.sidecars.egress.encodings import MAX_RATIO, Decoder, Unreadable, decoded

TEXT = b"an ordinary text, " * 200


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (TEXT, ""),
        (TEXT, "identity"),
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), "x-gzip"),
        (zlib.compress(TEXT), "deflate"),
        (raw_deflate(TEXT), "deflate"),
        (gzip.compress(TEXT[:700]) + gzip.compress(TEXT[700:]), "gzip"),
    ],
    ids=["none", "identity", "gzip", "x-gzip", "deflate", "raw-deflate", "two-members"],
)
def test_a_whole_body_is_read_in_each_way_to_write_it(body: bytes, encoding: str) -> None:
    assert decoded(body, encoding) == TEXT


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (TEXT, "compress"),
        (gzip.compress(TEXT), "gzip, gzip"),
        (zlib.compress(TEXT) + TEXT, "deflate"),
        (raw_deflate(TEXT) + TEXT, "deflate"),
        (gzip.compress(TEXT) + TEXT, "gzip"),
        (gzip.compress(TEXT)[:-9], "gzip"),
        (gzip.compress(TEXT) + gzip.compress(TEXT)[:-9], "gzip"),
        (zlib.compress(TEXT)[:-9], "deflate"),
    ],
    ids=["unknown", "two", "behind", "behind-raw", "behind-gzip", "cut", "second-cut", "cut-deflate"],
)
def test_a_body_that_isn_t_whole_in_its_encoding_is_refused(body: bytes, encoding: str) -> None:
    with pytest.raises(Unreadable):
        decoded(body, encoding)


def test_a_whole_body_unpacks_to_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, none of which is over the bound by itself."""
    monkeypatch.setattr(encodings, "PIECE_OUT", 1 << 10)
    monkeypatch.setattr(encodings, "MAX_DECODED", len(TEXT))
    assert decoded(gzip.compress(TEXT), "gzip") == TEXT
    with pytest.raises(Unreadable, match="more than is read"):
        decoded(gzip.compress(TEXT + b"!"), "gzip")


def test_a_body_that_passes_unpacks_to_no_more_than_so_many_times_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte that came counts once, whatever the blocks were, and what is over the bound doesn't come out."""
    monkeypatch.setattr(encodings, "FREE_BYTES", 0)
    monkeypatch.setattr(encodings, "PIECE_OUT", 1)
    body = zlib.compress(b"\0" * (64 << 10))
    assert len(body) * MAX_RATIO < 64 << 10
    decoder = Decoder("deflate")
    read, out = 0, 0

    def read_all() -> None:
        nonlocal read, out
        for at in range(0, len(body), 5):
            read += len(body[at : at + 5])
            for piece in decoder.feed(body[at : at + 5]):
                out += len(piece)

    with pytest.raises(Unreadable, match="far more"):
        read_all()
    assert 0 < out == MAX_RATIO * read
