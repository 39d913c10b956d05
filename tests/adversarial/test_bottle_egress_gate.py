"""Attacks on the egress gate itself, at its own socket; what arrived is told by the upstream."""

from __future__ import annotations

import gzip
import http.client
import os
import resource
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.parts.egress_gate import EgressGate, route
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.attack(backend="alone")

TOKEN = "tok-REAL-0123456789abcdef"
HELD = "held-secret-77665544"
NAMES = ("api.test", "open.test", "other.test")
ROUTES = [route("api.test", prefixes=["/v1"], slot="EGRESS_TOKEN_0"), route("open.test"), route("other.test")]
MIB = 1 << 20


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with Upstream(tmp_path_factory.mktemp("upstream"), NAMES) as running:
        yield running


@pytest.fixture(scope="module")
def gate(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EgressGate]:
    reach = dict.fromkeys(NAMES, (upstream.address, upstream.port))
    with EgressGate(
        tmp_path_factory.mktemp("gate"), ROUTES, reach, upstream.ca,
        tokens={"EGRESS_TOKEN_0": TOKEN}, known=[("HELD", HELD)],
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(autouse=True)
def clean(upstream: Upstream, gate: EgressGate) -> Iterator[None]:
    upstream.requests.clear()
    upstream.messages.clear()
    yield
    assert not gate.gone()
    assert gate.ask("open.test", "/after")[0] == 200  # whatever was tried, ordinary work goes on
    assert [line for line in gate.other if "Traceback" in line] == []


class TestReload:
    """What a new policy doesn't admit any more is cut; what it says the same of goes on."""

    @pytest.fixture(autouse=True)
    def back(self, gate: EgressGate) -> Iterator[None]:
        yield
        gate.reload(ROUTES)

    def test_a_kept_connection_whose_route_is_gone_is_cut_and_the_others_stay(self, gate: EgressGate) -> None:
        gone, kept = gate.client("other.test"), gate.client("open.test")
        for client in (gone, kept):
            client.request("GET", "/before")
            assert client.getresponse().read()
        gate.reload([each for each in ROUTES if each["host"] != "other.test"])
        assert was_cut(gone)
        kept.request("GET", "/after")
        assert kept.getresponse().status == 200
        kept.close()
        gone.close()

    def test_a_route_that_is_there_still_and_says_less_cuts_too(self, gate: EgressGate) -> None:
        client = gate.client("open.test")
        client.request("GET", "/before")
        assert client.getresponse().read()
        gate.reload([route("open.test", prefixes=["/v1"]) if each["host"] == "open.test" else each for each in ROUTES])
        assert was_cut(client)
        client.close()
        assert gate.ask("open.test", "/after")[0] == 403

    def test_a_tunnel_that_nothing_was_said_in_is_cut(self, gate: EgressGate) -> None:
        made, said = gate.tunnel("other.test")
        assert " 200 " in said
        gate.reload([])
        with made:
            assert made.recv(1) == b""

    def test_a_web_socket_is_cut_and_one_of_a_kept_route_is_not(self, gate: EgressGate, upstream: Upstream) -> None:
        gone, kept = web_socket(gate, "other.test"), web_socket(gate, "open.test")
        for stream in (gone, kept):
            stream.sendall(frame(0x1, b"before"))
            assert stream.recv(4096).endswith(b"before")
        gate.reload([each for each in ROUTES if each["host"] != "other.test"])
        assert ended(gone)
        kept.sendall(frame(0x1, b"after"))
        assert kept.recv(4096).endswith(b"after")
        gone.close()
        kept.close()
        assert upstream.messages == [b"before", b"before", b"after"]

    def test_http2_is_cut(self, gate: EgressGate) -> None:
        stream = gate.tls("other.test", ["h2"])
        assert stream.selected_alpn_protocol() == "h2"
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0) + h2_get(1, "other.test", "/before"))
        assert h2_status(stream) == 0x88
        gate.reload([])
        assert ended(stream)
        stream.close()

    def test_an_answer_that_is_still_coming_is_cut(self, gate: EgressGate, upstream: Upstream) -> None:
        upstream.seen.clear()
        client = gate.client("other.test")
        client.request("GET", "/events")
        answer = client.getresponse()
        assert answer.readline() == b"data: first\n"
        gate.reload([])
        with pytest.raises((OSError, http.client.HTTPException)):
            answer.read()
        upstream.seen.set()
        client.close()


def was_cut(client: http.client.HTTPConnection) -> bool:
    """True when a kept connection takes no other request."""
    try:
        client.request("GET", "/after")
        client.getresponse()
    except (OSError, http.client.HTTPException):
        return True
    return False


def frame(kind: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A masked WebSocket frame (RFC 6455, 5.2)."""
    mask = b"\x05\x06\x07\x08"
    head = bytes([kind | (0x80 if fin else 0) | (0x40 if rsv1 else 0)])
    size = len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def web_socket(gate: EgressGate, host: str, path: str = "/ws", extensions: str = "") -> socket.socket:
    """A WebSocket through the gate."""
    stream = gate.tls(host)
    more = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    stream.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n".encode()
    )
    said = b""
    while b"\r\n\r\n" not in said:
        block = stream.recv(1)
        assert block, said
        said += block
    assert b" 101 " in said, said
    return stream


def ended(stream: socket.socket) -> bool:
    """True when the other end closes it within the stream's own bound."""
    try:
        while stream.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2_get(stream: int, host: str, path: str, *, ends: bool = True, method: str = "GET") -> bytes:
    """The head of an HTTP/2 request."""
    fields = ((":method", method), (":scheme", "https"), (":authority", host), (":path", path))
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields
    )
    return h2_frame(1, 5 if ends else 4, stream, block)


def h2_status(stream: socket.socket) -> int:
    """The first byte of the first answer's head: 0x88 is `:status: 200`; -1 for a reset or an end."""
    said = b""
    while True:
        while len(said) >= 9 and len(said) >= 9 + int.from_bytes(said[:3], "big"):
            size, kind = int.from_bytes(said[:3], "big"), said[3]
            payload, said = said[9 : 9 + size], said[9 + size :]
            if kind == 1:
                return payload[0]
            if kind in (3, 7):
                return -1
        try:
            block = stream.recv(65536)
        except OSError:
            return -1
        if not block:
            return -1
        said += block


class TestWebSocketFrames:
    """DL11, DL12: every kind of frame is judged, whole messages and what stands beside them."""

    @pytest.mark.parametrize(
        "frames",
        {
            "DL12_binary": [frame(0x2, b"a " + HELD.encode())],
            "DL12_text": [frame(0x1, HELD.encode())],
            "DL11_fragments": [frame(0x1, HELD[:7].encode(), fin=False), frame(0x0, HELD[7:].encode())],
            "DL11_messages": [frame(0x1, HELD[:9].encode()), frame(0x1, HELD[9:].encode()), frame(0x1, b"later")],
            "DL12_ping": [frame(0x9, HELD.encode())],
            "DL12_pong": [frame(0xA, HELD.encode())],
            "DL12_close": [frame(0x8, struct.pack("!H", 1000) + HELD.encode())],
            "DL12_one_write": [frame(0x1, HELD.encode()) + frame(0x1, b"later")],
        }.items(),
        ids=lambda item: item[0],
    )
    def test_a_value_in_a_frame_goes_nowhere(
        self, gate: EgressGate, upstream: Upstream, frames: tuple[str, list[bytes]]
    ) -> None:
        with web_socket(gate, "open.test") as stream:
            stream.sendall(frame(0x1, b"hello"))
            assert stream.recv(4096).endswith(b"hello")
            for each in frames[1]:
                try:
                    stream.sendall(each)
                except OSError:
                    break
            assert ended(stream)
        said = b"".join(upstream.messages)
        assert upstream.messages[0] == b"hello"
        assert HELD.encode() not in said
        assert b"later" not in said

    def test_DL12_a_value_in_a_compressed_message_goes_nowhere(self, gate: EgressGate, upstream: Upstream) -> None:
        with web_socket(gate, "open.test", "/deflate-ws", "permessage-deflate") as stream:
            packer = zlib.compressobj(wbits=-15)
            packed = packer.compress(HELD.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
            stream.sendall(frame(0x1, packed[:-4], rsv1=True))
            assert ended(stream)
        assert upstream.messages == []

    def test_PX31_a_message_without_an_end_is_cut(self, gate: EgressGate) -> None:
        before = gate.memory("VmRSS")
        with web_socket(gate, "open.test") as stream:
            block = frame(0x0, b"x" * 65536, fin=False)
            try:
                stream.sendall(frame(0x2, b"x", fin=False))
                for _ in range(64 * MIB // 65536):
                    stream.sendall(block)
            except OSError:
                pass
            assert ended(stream)
        assert gate.memory("VmRSS") - before < 120 * MIB


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
        assert gate.memory() < 400 * MIB

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

    def test_PX31_thousands_of_tunnels_leave_room_for_the_next(self, gate: EgressGate) -> None:
        with ExitStack() as stack:
            for _ in range(2000):
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


class TestFraming:
    """PX19, PX20, PX4, PX9: one request, in one framing, with nothing behind it."""

    @pytest.mark.parametrize(
        "request_bytes",
        {
            "PX19_te_cl": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
            "PX19_te_te": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
            "PX19_te_odd": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "PX19_te_case": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "PX19_te_list": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "PX19_cl_cl": b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "PX19_cl_sign": b"Content-Length: +1\r\n\r\na",
            "PX19_cr": b"X-A: b\rHost: evil.test\r\n\r\n",
            "PX20_trailer": b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Held: b\r\n\r\n",
        }.items(),
        ids=lambda item: item[0],
    )
    def test_two_readings_of_one_request_are_none(
        self, gate: EgressGate, upstream: Upstream, request_bytes: tuple[str, bytes]
    ) -> None:
        with gate.tls("open.test") as stream:
            stream.sendall(b"POST /framed HTTP/1.1\r\nHost: open.test\r\n" + request_bytes[1])
            assert ended(stream)
        assert upstream.requests == []

    def test_PX20_what_stands_beside_a_chunk_s_size_doesn_t_go_on(self, gate: EgressGate, upstream: Upstream) -> None:
        with gate.tls("open.test") as stream:
            stream.sendall(
                b"POST /framed HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                b"1;x=" + HELD.encode() + b"\r\na\r\n0;y=" + HELD.encode() + b"\r\n\r\n"
            )
            assert ended(stream)
        (arrived,) = upstream.requests
        assert arrived.body == b"a"

    def test_PX4_tls_without_http_inside_goes_nowhere(self, gate: EgressGate, upstream: Upstream) -> None:
        before = upstream.connections
        with gate.tls("open.test", ["imap"]) as stream:
            stream.sendall(b"\x00\x00\x00\x10SSH-2.0-x\r\n\r\n\r\n")
            assert ended(stream)
        assert upstream.requests == []
        assert upstream.connections == before

    def test_PX26_an_echo_in_an_encoding_that_wasn_t_asked_for_is_masked(self, gate: EgressGate) -> None:
        status, said = gate.ask("api.test", "/v1/gzip")
        assert status == 200
        assert TOKEN.encode() not in said
        assert b"*" * len(TOKEN) in said

    def test_DL6_a_value_under_layers_in_a_chunked_body_stays(self, gate: EgressGate, upstream: Upstream) -> None:
        import base64

        layered = base64.b64encode(base64.b64encode(HELD.encode()).hex().encode())
        client = gate.client("open.test")
        client.request("POST", "/", iter([b"begin ", layered[:20], layered[20:]]), {"Transfer-Encoding": "chunked"},
                       encode_chunked=True)  # fmt: skip
        answer = client.getresponse()
        assert (answer.status, b"the body holds the value of HELD" in answer.read()) == (403, True)
        client.close()
        assert upstream.requests == []

    @pytest.mark.parametrize("size", [2000, 3 * MIB])
    def test_DL14_a_value_in_a_packed_body_goes_nowhere(self, gate: EgressGate, upstream: Upstream, size: int) -> None:
        body = gzip.compress(os.urandom(size) + HELD.encode() + os.urandom(100))
        for headers in ({"Content-Encoding": "gzip"}, {"Content-Type": "application/gzip"} if size < MIB else {}):
            if headers:
                assert gate.ask("open.test", "/", "POST", body, headers)[0] in (0, 403)
        assert [each for each in upstream.requests if each.body] == []


def test_CR8_a_route_whose_token_is_missing_lets_nothing_out(upstream: Upstream, tmp_path: Path) -> None:
    reach = dict.fromkeys(NAMES, (upstream.address, upstream.port))
    with EgressGate(tmp_path, ROUTES, reach, upstream.ca) as bare:
        status, said = bare.ask("api.test", "/v1/x")
    assert (status, b"credential of this route is missing" in said) == (403, True)
    assert [each for each in upstream.requests if each.path != "/after"] == []


def test_PX30_a_gate_that_stands_still_lets_nothing_through(gate: EgressGate, upstream: Upstream) -> None:
    os.kill(gate.process.pid, 19)
    try:
        client = gate.dial(timeout_s=1)
        client.sendall(b"CONNECT open.test:443 HTTP/1.1\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.close()
    finally:
        os.kill(gate.process.pid, 18)
    assert upstream.requests == []


def test_an_answer_reaches_the_agent_while_a_large_body_is_searched(gate: EgressGate) -> None:
    """Events of other requests don't wait for a search."""
    import base64
    import threading

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
    eventually_now(lambda: gate.memory("VmRSS") < 300 * MIB, within_s=10, what="its memory is back")
