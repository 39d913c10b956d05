"""Bombs, slow clients and crowds at the egress gate: bounded memory, and the gate goes on."""

from __future__ import annotations

import base64
import http.client
import os
import resource
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.parts.egress_gate import EgressGate
from tests.parts.lone_gate import MIB
from tests.parts.raw_frames import ended, h2_frame, h2_get
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

pytestmark = [pytest.mark.attack(backend="alone"), pytest.mark.usefixtures("whole_gate")]


def bomb() -> bytes:
    """A small gzip body that unpacks to 256 MiB."""
    packer = zlib.compressobj(9, wbits=31)
    block = bytes(MIB)
    return b"".join(packer.compress(block) for _ in range(256)) + packer.flush()


class TestBombs:
    """PX31: bounded memory, and the gate goes on."""

    @pytest.fixture(autouse=True)
    def bounded(self, gate: EgressGate) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        yield
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert gate.memory() < 512 * MIB

    def test_PX31_a_body_that_unpacks_to_far_more_is_refused(self, gate: EgressGate, upstream: Upstream) -> None:
        body = bomb()
        headers = {"Content-Encoding": "gzip"}
        assert gate.ask("open.test", "/", "POST", body, headers)[0] in (0, 403)
        client = gate.client("open.test")
        client.putrequest("POST", "/")
        client.putheader("Transfer-Encoding", "chunked")
        client.putheader("Content-Encoding", "gzip")
        client.endheaders()
        try:
            client.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            client.getresponse()
        except (OSError, http.client.HTTPException):
            pass
        client.close()
        assert [each for each in upstream.requests if each.body] == []

    @pytest.mark.parametrize("encoding", ["br", "zstd"])
    def test_PX31_small_bombs_in_other_encodings(self, gate: EgressGate, encoding: str) -> None:
        made = (Path(__file__).parents[1] / "cases" / f"bomb.{encoding}").read_bytes()
        assert len(made) < 20_000
        status, said = gate.ask("open.test", "/", "POST", made, {"Content-Encoding": encoding})
        assert (status, b"unpacks" in said) == (403, True)

    def test_PX31_a_head_without_an_end_is_cut(self, gate: EgressGate) -> None:
        for before in (b"GET /", b"GET / HTTP/1.1\r\nHost: open.test\r\nX-A: "):
            with gate.tls("open.test") as stream:
                try:
                    stream.sendall(before)
                    for _ in range(64):
                        stream.sendall(b"a" * 65536)
                except OSError:
                    pass
                assert ended(stream)
        with gate.dial() as bare:
            try:
                for _ in range(64):
                    bare.sendall(b"a" * 65536)
            except OSError:
                pass
            assert ended(bare)

    def test_PX31_more_headers_than_anyone_sends_are_refused(self, gate: EgressGate, upstream: Upstream) -> None:
        assert gate.ask("open.test", "/", headers={f"x-{at}": "y" for at in range(300)})[0] == 403
        assert upstream.requests == []

    def test_PX31_a_chunk_s_line_without_an_end_is_cut(self, gate: EgressGate) -> None:
        with gate.tls("open.test") as stream:
            try:
                stream.sendall(b"POST / HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: chunked\r\n\r\n1;")
                for _ in range(64):
                    stream.sendall(b"a" * 65536)
            except OSError:
                pass
            assert ended(stream)

    def test_PX31_requests_behind_one_that_waits_are_not_hoarded(self, gate: EgressGate, upstream: Upstream) -> None:
        upstream.seen.clear()
        with gate.tls("open.test") as stream:
            try:
                stream.sendall(b"GET /events HTTP/1.1\r\nHost: open.test\r\n\r\n")
                for _ in range(128):
                    stream.sendall(b"a" * 65536)
            except OSError:
                pass
            upstream.seen.set()
            assert ended(stream)

    def test_PX31_a_body_that_no_length_was_said_of_is_not_hoarded(self, gate: EgressGate) -> None:
        """HTTP/2 lets a GET go on without an end."""
        with gate.tls("open.test", ["h2"]) as stream:
            stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0))
            stream.sendall(h2_get(1, "evil.test", "/", ends=False))
            try:
                for _ in range(4096):
                    stream.sendall(h2_frame(0, 0, 1, b"x" * 16384))
            except OSError:
                pass

    def test_PX31_bodies_that_are_held_have_a_bound_together(self, gate: EgressGate, upstream: Upstream) -> None:
        """Two connections of a hundred requests, each with a body that stops short of its end."""
        piece = h2_frame(0, 0, 1, b"x" * 16384)
        with ExitStack() as stack:
            for _ in range(2):
                stream = stack.enter_context(gate.tls("open.test", ["h2"]))
                stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0))
                try:
                    for number in range(1, 200, 2):
                        stream.sendall(h2_get(number, "open.test", "/", ends=False, method="POST", length=1 << 20))
                        body = piece[:5] + number.to_bytes(4, "big") + piece[9:]
                        stream.sendall(body * 63)
                except OSError:
                    continue
            assert gate.ask("open.test", "/beside", "POST", b"small")[0] in (200, 413)

        def room() -> bool:
            return gate.ask("open.test", "/beside", "POST", b"small")[0] == 200

        eventually_now(room, within_s=20, what="there is room again")
        assert {each.path for each in upstream.requests} <= {"/beside"}

    def test_PX31_a_crowd_of_tunnels_leaves_room_for_the_next(self, gate: EgressGate) -> None:
        with ExitStack() as stack:
            for _ in range(1200):
                stream, said = gate.tunnel("open.test")
                stack.callback(stream.close)
                assert " 200 " in said
            assert gate.ask("open.test", "/beside")[0] == 200

    def test_PX31_a_slow_loris_is_put_out_first(self, gate: EgressGate) -> None:
        with ExitStack() as stack:
            slow = []
            for _ in range(700):
                slow.append(stack.enter_context(gate.dial()))
                slow[-1].sendall(b"CONNECT open.test:443 HTTP/1.1\r\nX-A: ")
            for stream in slow[-50:]:
                stream.sendall(b"b")
            assert gate.ask("open.test", "/beside")[0] == 200


def test_an_answer_reaches_the_agent_while_a_large_body_is_searched(gate: EgressGate) -> None:
    """Events of other requests don't wait for a search."""

    large = base64.b64encode(os.urandom(700_000))
    took: list[float] = []

    def small() -> None:
        client = gate.client("open.test")
        end = time.monotonic() + 2
        while time.monotonic() < end:
            began = time.monotonic()
            client.request("GET", "/small")
            client.getresponse().read()
            took.append(time.monotonic() - began)
        client.close()

    beside = threading.Thread(target=small)
    beside.start()
    for _ in range(3):
        assert gate.ask("open.test", "/large", "POST", large)[0] == 200
    beside.join()
    assert sorted(took)[len(took) // 2] < 0.5
