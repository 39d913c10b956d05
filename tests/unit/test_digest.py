"""The digest of a stream is sha256 of its bytes, wherever and in whatever pieces it is computed."""

from __future__ import annotations

import hashlib
import random

import pytest

from opsexec import digest
from opsexec.digest import BATCH, StreamDigest


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("size", [0, 1, BATCH - 1, BATCH, 3 * BATCH + 5])
def test_it_is_the_digest_of_all_blocks_in_order(beside: bool, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_has_room_beside", lambda: beside)
    chance = random.Random(size)
    whole = chance.randbytes(size)
    stream, at = StreamDigest(), 0
    while at < size:
        end = at + chance.randint(1, 300_000)
        stream.update(whole[at:end])
        at = end
    assert stream.hexdigest() == hashlib.sha256(whole).hexdigest()
    stream.update(b"more")  # asked for in between, as a run's first words in an audit are
    assert stream.hexdigest() == hashlib.sha256(whole + b"more").hexdigest()
