"""The digest of a stream is sha256 of its bytes, wherever and in whatever pieces it is computed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys

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


FORKED = """
import hashlib, os, sys
from opsexec import digest
digest._has_room_beside = lambda: True
data = bytes(digest.BATCH)
def digested():
    stream = digest.StreamDigest()
    for _ in range(3):
        stream.update(data)
    return stream.hexdigest()
whole = hashlib.sha256(data * 3).hexdigest()
assert digested() == whole
child = os.fork()
if not child:
    os._exit(digested() != whole)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_digests_too() -> None:
    done = subprocess.Popen([sys.executable, "-c", FORKED], start_new_session=True)
    try:
        assert done.wait(60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(done.pid, signal.SIGKILL)
