"""Requests and frames that could be read in two ways, or carry more than a request, at the egress gate itself."""

from __future__ import annotations

import base64
import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.parts.bottle_inside import frame as http2_frame
from tests.parts.egress_gate import EgressGate
from tests.parts.lone_gate import HELD, MIB, NAMES, ROUTES, TOKEN, gate_in, upstream_in
from tests.parts.raw_frames import ended, frame, web_socket
from tests.parts.upstream_shop import Shop
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

pytestmark = [pytest.mark.attack(backend="alone"), pytest.mark.usefixtures("whole_gate")]


def told(gate: EgressGate, before: int, *reasons: str) -> None:
    """Wait until these refusals, and no others, are in what the gate says."""
    eventually_now(lambda: len(gate.reasons()) >= before + len(reasons), within_s=10, what="the refusal is told")
    assert gate.reasons()[before:] == list(reasons)


class TestWebSocketFrames:
    """DL11, DL12: every kind of frame is judged, whole messages and what stands beside them."""

    @pytest.mark.parametrize(
        "frames",
        {
            "DL12_binary": [frame(0x2, b"a " + HELD.encode())],
            "DL12_text": [frame(0x1, HELD.encode())],
            "DL11_fragments": [frame(0x1, HELD[:7].encode(), fin=False), frame(0x0, HELD[7:].encode())],
            "DL11_messages": [frame(0x1, HELD[:9].encode()), frame(0x1, HELD[9:].encode()), frame(0x1, b"later")],
            "DL11_scattered": [frame(0x1, each.encode() + b"-" * 40) for each in HELD],
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


class TestWebSocketEchoes:
    """PX26: the credential doesn't come back, in whatever frame."""

    @pytest.mark.parametrize(("asked", "first"), [(b"ping", 0x89), (b"pong", 0x8A), (b"goodbye", 0x88), (b"x", 0x81)])
    def test_PX26_a_credential_in_a_frame_of_the_upstream_s_is_masked(
        self, gate: EgressGate, asked: bytes, first: int
    ) -> None:
        with web_socket(gate, "api.test", "/v1/ws") as stream:
            stream.sendall(frame(0x1, asked))
            said = b""
            while not said.endswith(b" " + asked):
                said += stream.recv(4096) or pytest.fail(f"it ended after {said!r}")
        assert said[0] == first
        assert said.endswith(b"Bearer " + b"*" * len(TOKEN) + b" " + asked)

    def test_PX26_a_credential_cut_over_frames_ends_the_websocket(self, gate: EgressGate) -> None:
        before = len(gate.reasons())
        with web_socket(gate, "api.test", "/v1/ws") as stream:
            stream.sendall(frame(0x1, b"halves"))
            said = b""
            while block := stream.recv(4096):
                said += block
        assert b"Bearer tok-REAL-" in said
        assert TOKEN[9:].encode() not in said
        told(gate, before, "WebSocket messages of the upstream's hold a credential of this bottle")

    def test_PX26_a_credential_in_the_head_of_an_upgrade_is_masked(self, gate: EgressGate) -> None:
        with gate.tls("api.test") as stream:
            key = base64.b64encode(os.urandom(16)).decode()
            stream.sendall(
                b"GET /v1/ws/echo HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
            )
            head = b""
            while b"\r\n\r\n" not in head:
                head += stream.recv(4096) or pytest.fail("it ended")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"x-echo: Bearer " + b"*" * len(TOKEN) in head
        assert TOKEN.encode() not in head

    def test_DL12_a_ping_that_isn_t_sent_on_is_in_the_audit(self, gate: EgressGate) -> None:
        before = len(gate.reasons())
        with web_socket(gate, "open.test") as stream:
            stream.sendall(frame(0x9, HELD.encode()))
            assert ended(stream)
        told(gate, before, "WebSocket messages hold a value of this bottle")


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
            "PX19_cl_ends_here": b"Connection: keep-alive, Content-length\r\nContent-Length: 4\r\n\r\nGET ",
            "PX19_te_ends_here": b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "PX5_host_ends_here": b"Connection: close\r\nConnection: host\r\n\r\n",
            "PX19_cl_underscored": b"Content-Length: 1\r\nContent_Length: 30\r\n\r\na",
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

    @pytest.mark.parametrize(
        ("head", "reason"),
        [
            (b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "a header that frames the request stands twice"),
            (b"Transfer-Encoding: xchunked\r\n", "a transfer coding other than chunked"),
            (b"X A: 1\r\n", "a header's name is malformed"),
        ],
        ids=["PX19_te_cl", "PX19_te_odd", "a_name"],
    )
    def test_what_mitmproxy_takes_for_no_head_is_refused_for_what_it_is(
        self, gate: EgressGate, head: bytes, reason: str
    ) -> None:
        before = len(gate.reasons())
        with gate.tls("open.test") as stream:
            stream.sendall(b"POST /framed HTTP/1.1\r\nHost: open.test\r\n" + head + b"\r\n")
            assert ended(stream)
        told(gate, before, reason)

    @pytest.mark.parametrize(
        ("method", "length", "frames"),
        {
            "PX19_no_body": ("GET", "40", []),
            "PX19_large_no_body": ("POST", "4000000", []),
            "PX19_trailers": ("POST", "40", [(0, 0, b"abc"), (1, 5, b"\x00\x01x\x01y")]),
            "PX19_lower_case": ("get", "0", []),
        }.values(),
        ids=("PX19_no_body", "PX19_large_no_body", "PX19_trailers", "PX19_lower_case"),
    )
    def test_what_http2_leaves_open_isn_t_sent_in_http1(
        self, gate: EgressGate, upstream: Upstream, method: str, length: str, frames: list[tuple[int, int, bytes]]
    ) -> None:
        fields = {":method": method, ":scheme": "https", ":authority": "open.test", ":path": "/framed"}
        fields["content-length"] = length
        block = b"".join(
            b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in fields.items()
        )
        before = len(gate.reasons())
        with gate.tls("open.test", ["h2"]) as stream:
            stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2_frame(4, 0, 0))
            stream.sendall(http2_frame(1, 4 if frames else 5, 1, block))
            for kind, flags, payload in frames:
                stream.sendall(http2_frame(kind, flags, 1, payload))
            reason = "this method is not forwarded" if method == "get" else "the body isn't as long as it says"
            told(gate, before, reason)
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

        layered = base64.b64encode(base64.b64encode(HELD.encode()).hex().encode())
        client = gate.client("open.test")
        client.request("POST", "/", iter([b"begin ", layered[:20], layered[20:]]), {"Transfer-Encoding": "chunked"},
                       encode_chunked=True)  # fmt: skip
        answer = client.getresponse()
        assert (answer.status, b"the body holds the value of HELD" in answer.read()) == (403, True)
        client.close()
        assert upstream.requests == []

    def test_DL6_a_value_cut_between_a_header_s_name_and_its_value_stays(
        self, gate: EgressGate, upstream: Upstream
    ) -> None:
        for headers in (
            {HELD[:9]: HELD[9:]},
            {f"x-{HELD[:9]}": f" {HELD[9:]}; a=b"},
            {"x": HELD[:7], HELD[7:14]: HELD[14:]},
        ):
            status, body = gate.ask("open.test", "/", "GET", b"", headers)[:2]
            assert (status, b"the request holds the value of HELD" in body) == (403, True)
        assert upstream.requests == []

    @pytest.mark.parametrize("size", [2000, 3 * MIB])
    def test_DL14_a_value_in_a_packed_body_goes_nowhere(self, gate: EgressGate, upstream: Upstream, size: int) -> None:
        body = gzip.compress(os.urandom(size) + HELD.encode() + os.urandom(100))
        for headers in ({"Content-Encoding": "gzip"}, {"Content-Type": "application/gzip"}):
            assert gate.ask("open.test", "/", "POST", body, headers)[0] in (0, 403)
        assert [each for each in upstream.requests if len(each.body) == len(body)] == []  # a large one is cut

    def test_DL14_an_archive_that_nobody_can_read_is_refused_and_says_so(
        self, gate: EgressGate, upstream: Upstream
    ) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a", HELD)
        locked = bytearray(out.getvalue().replace(HELD.encode(), os.urandom(len(HELD))))
        locked[6] |= 1
        before = len(gate.reasons())
        status, said = gate.ask("open.test", "/", "POST", bytes(locked), {"Content-Type": "application/zip"})
        reason = "the body can't be read: an encrypted zip archive"
        assert (status, reason in said.decode()) == (403, True)
        told(gate, before, reason)
        with web_socket(gate, "open.test") as stream:
            stream.sendall(frame(0x2, bytes(locked)))
            assert ended(stream)
        told(gate, before, reason, "a WebSocket message can't be read: an encrypted zip archive")
        assert upstream.messages == []
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


def test_DL12_a_value_in_a_compressed_message_goes_nowhere(tmp_path: Path) -> None:
    shop = Shop()
    (tmp_path / "upstream").mkdir()
    with upstream_in(tmp_path / "upstream", shop) as upstream, gate_in(tmp_path, upstream) as packing:
        with web_socket(packing, "open.test", extensions="permessage-deflate") as stream:
            for text in (b"hello " * 20, b"a " + HELD.encode()):
                packer = zlib.compressobj(wbits=-15)
                packed = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
                stream.sendall(frame(0x1, packed[:-4], rsv1=True))
                if HELD.encode() not in text:
                    assert stream.recv(4096)
            assert ended(stream)
        assert shop.heard == [(1, b"hello " * 20)]
