"""Answers that aren't HTTP, or not yet the answer, at the egress gate itself: what they echo stays there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parts.egress_gate import EgressGate
from tests.parts.lone_gate import TOKEN, gate_in, nothing_is_broken, upstream_in
from tests.parts.upstream_tls import RequestHandler, Upstream, plain_handler

pytestmark = pytest.mark.attack(backend="alone")

BROKEN = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: ECHO\r\n\r\nok",
    "second_length": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: ECHO\r\n\r\nok",
    "coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: ECHO\r\n\r\nok",
    "status": b"HTTP/1.1 ECHO OK\r\n\r\n",
    "no_colon": b"HTTP/1.1 200 OK\r\nECHO\r\ncontent-length: 2\r\n\r\nok",
    "name": b"HTTP/1.1 200 OK\r\nx ECHO: 1\r\ncontent-length: 2\r\n\r\nok",
    "nothing_else": b"ECHO\r\n\r\n",
    "broken_off": b"HTTP/1.1 200 OK\r\nx: ECHO",
    "chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nECHO\r\nok\r\n0\r\n\r\n",
}
CUT = {
    "two_fields": b"HTTP/1.1 200 OK\r\nx-a: ECHO1\r\nx-b: ECHO2\r\n",
    "name_and_value": b"HTTP/1.1 200 OK\r\nECHO1: ECHO2\r\n",
    "reason": b"HTTP/1.1 200 ECHO1\r\nx: ECHO2\r\n",
    "others_between": b"HTTP/1.1 200 OK\r\nx-1: ECHO1\r\ndate: now\r\nx-2: ECHO2\r\n",
    "cookies": b"HTTP/1.1 200 OK\r\nset-cookie: a=ECHO1; Path=/\r\nset-cookie: b=ECHO2; Path=/\r\n",
}
NEVER_AN_ANSWER = {
    "many_interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 65,
    "odd_interim": b"HTTP/1.1  103 Early Hints\r\nx: ECHO\r\n\r\n",
    "below_all": b"HTTP/1.1 099 ECHO\r\n\r\n",
}
INTERIM = b"HTTP/1.1 100 ECHO\r\nx: ECHO\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: ECHO\r\n\r\n"


def handler(upstream: Upstream) -> type[RequestHandler]:
    base = plain_handler(upstream)

    class Handler(base):  # type: ignore[misc,valid-type] # a class that is made for each upstream
        def do_GET(self) -> None:
            kind = self.path.rpartition("/")[2]
            echo = self.headers.get("authorization", "").encode()
            if kind in BROKEN:
                self.wfile.write(BROKEN[kind].replace(b"ECHO", echo))
                self.close_connection = True
                return
            if kind in CUT:
                halves = echo.removeprefix(b"Bearer ")[:12], echo.removeprefix(b"Bearer ")[12:]
                head = CUT[kind].replace(b"ECHO1", halves[0]).replace(b"ECHO2", halves[1])
                self.wfile.write(head + b"content-length: 2\r\n\r\nok")
                self.close_connection = True
                return
            if kind in NEVER_AN_ANSWER:
                self.wfile.write(NEVER_AN_ANSWER[kind].replace(b"ECHO", echo))
            if kind == "interim":
                self.wfile.write(INTERIM.replace(b"ECHO", echo))
            self.answer()

    return Handler


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    made = upstream_in(tmp_path_factory.mktemp("upstream"))
    made.handler = handler
    with made:
        yield made


@pytest.fixture(scope="module")
def gate(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EgressGate]:
    with gate_in(tmp_path_factory.mktemp("gate"), upstream) as running:
        yield running


def raw(gate: EgressGate, target: str) -> bytes:
    """Every byte that comes back for one request, which is its connection's last."""
    return to_the_end(gate, f"GET {target} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")


def to_the_end(gate: EgressGate, request: str) -> bytes:
    """Every byte that comes back until the gate closes the connection."""
    said = b""
    with gate.tls("api.test") as stream:
        stream.sendall(request.encode())
        while block := stream.recv(65536):
            said += block
    return said


@pytest.mark.parametrize("kind", BROKEN)
def test_PX26_what_an_answer_that_is_no_http_echoes_isn_t_repeated(
    gate: EgressGate, upstream: Upstream, kind: str
) -> None:
    upstream.requests.clear()
    said = raw(gate, f"/v1/{kind}")
    assert TOKEN.encode() not in said
    assert said.startswith((b"HTTP/1.1 502 ", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"))
    assert [line for line in gate.other if TOKEN in line] == []
    nothing_is_broken(gate)


@pytest.mark.parametrize("kind", CUT)
def test_PX26_an_echo_that_is_cut_over_a_head_is_masked(gate: EgressGate, kind: str) -> None:
    said = raw(gate, f"/v1/{kind}")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"\r\n\r\nok")
    assert TOKEN[:12].encode() not in said
    assert TOKEN[12:].encode() not in said
    assert b"*" * 12 in said


def test_an_answer_comes_behind_what_was_said_before_it(gate: EgressGate) -> None:
    said = raw(gate, "/v1/interim")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b'"path": "/v1/interim"' in said
    assert TOKEN.encode() not in said


def test_each_answer_of_a_connection_may_have_something_said_before_it(gate: EgressGate) -> None:
    with gate.tls("api.test") as stream, stream.makefile("rb") as said:
        for _ in range(40):
            stream.sendall(b"GET /v1/interim HTTP/1.1\r\nHost: api.test\r\n\r\n")
            assert said.readline().startswith(b"HTTP/1.1 200 ")
            head = dict(line.decode().lower().strip().split(": ", 1) for line in iter(said.readline, b"\r\n"))
            assert b'"path": "/v1/interim"' in said.read(int(head["content-length"]))


@pytest.mark.parametrize("kind", NEVER_AN_ANSWER)
def test_what_comes_before_an_answer_is_never_taken_for_it(gate: EgressGate, kind: str) -> None:
    said = to_the_end(gate, f"GET /v1/{kind} HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert said == b"" or said.startswith(b"HTTP/1.1 502 ")
