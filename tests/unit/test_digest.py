"""The digest of a stream: SHA-256 of a short one, BLAKE3 of a long one, in whatever pieces it comes."""

from __future__ import annotations

import hashlib
import random

import pytest
from blake3 import blake3

from opsexec.digest import SHORT, StreamDigest, differ

A, B = "a" * 64, "b" * 64


def digested(whole: bytes, most: int, *, standard: bool = False) -> str:
    """Return the digest of some bytes that come in pieces of up to `most`."""
    chance, stream, at = random.Random(len(whole)), StreamDigest(standard=standard), 0
    while at < len(whole):
        end = at + chance.randint(1, most)
        stream.update(whole[at:end])
        at = end
    return str(stream)


@pytest.mark.parametrize("most", [7, 40_000, 300_000])
@pytest.mark.parametrize("size", [0, 1, SHORT - 1, SHORT, SHORT + 1, 5 * SHORT + 3])
def test_the_length_says_which_one_it_is_and_all_blocks_count_in_order(size: int, most: int) -> None:
    whole = random.Random(size).randbytes(size)
    usual = f"sha256:{hashlib.sha256(whole).hexdigest()}"
    assert digested(whole, most) == (usual if size <= SHORT else f"blake3:{blake3(whole).hexdigest()}")
    assert digested(whole, most, standard=True) == usual


def test_it_may_be_asked_for_in_between() -> None:
    stream = StreamDigest()
    first, rest = bytes(SHORT), b"more"
    stream.update(first)
    assert str(stream) == f"sha256:{hashlib.sha256(first).hexdigest()}"
    stream.update(rest)
    assert str(stream) == f"blake3:{blake3(first + rest).hexdigest()}"
    stream.update(rest)
    assert str(stream) == f"blake3:{blake3(first + rest + rest).hexdigest()}"


def test_it_is_the_blake3_that_everybody_has() -> None:
    # "of 102400 bytes", counted 0 to 250 again and again: the test vectors of the BLAKE3 project (test_vectors.json)
    whole = bytes(at % 251 for at in range(102_400))
    assert digested(whole, 4096) == "blake3:bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (f"sha256:{A}", f"sha256:{A}", False),
        (f"blake3:{A}", f"blake3:{A}", False),
        (f"sha256:{A}", f"sha256:{B}", True),
        (f"blake3:{A}", f"blake3:{B}", True),
        (f"sha256:{A}", f"blake3:{A}", False),
        (f"blake3:{A}", f"sha256:{B}", False),
        ("", f"sha256:{A}", True),
        (f"crc32:{A}", f"blake3:{A}", True),
    ],
)
def test_digests_of_two_kinds_say_nothing_of_each_other(one: str, other: str, wanted: bool) -> None:
    assert differ(one, other) is wanted
