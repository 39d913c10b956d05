"""A search that breaks, at a whole egress gate: what it can't judge doesn't leave, and the audit says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parts.egress_gate import EgressGate
from tests.parts.lone_gate import gate_in
from tests.parts.raw_frames import ended, frame, web_socket
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.attack(backend="alone")

SENT = b"the unforeseen is in here"
FAILING = f"""
import runpy
from bottle.sidecars.egress import search

find = search.find

def fake_find(known, data, *more, **named):
    if {SENT!r} in data:
        raise ZeroDivisionError
    return find(known, data, *more, **named)

search.find = fake_find
runpy.run_module("bottle.sidecars.egress.serve", run_name="__main__")
"""
"""The daemon, whose search fails for one text."""


@pytest.fixture(scope="module")
def broken(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EgressGate]:
    within = [str(EgressGate.python()), "-c", FAILING]
    with gate_in(tmp_path_factory.mktemp("broken"), upstream, within) as running:
        yield running


def told(gate: EgressGate, before: int, reason: str) -> None:
    eventually_now(lambda: len(gate.reasons()) > before, within_s=10, what="the refusal is told")
    assert gate.reasons()[before:] == [reason]


def test_PX30_a_whole_body_whose_search_fails_is_refused(broken: EgressGate, upstream: Upstream) -> None:
    before = len(broken.reasons())
    status, said = broken.ask("open.test", "/whole", "POST", SENT)
    assert status == 403
    assert b"the body could not be judged (ZeroDivisionError)" in said
    told(broken, before, "the body could not be judged (ZeroDivisionError)")
    assert [each for each in upstream.requests if each.path == "/whole"] == []


def test_PX30_a_body_whose_search_fails_as_it_passes_is_cut(broken: EgressGate, upstream: Upstream) -> None:
    before = len(broken.reasons())
    with broken.tls("open.test") as stream:
        stream.sendall(b"POST /passing HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for each in (b"a beginning, ", SENT, b" and what came behind it"):
            stream.sendall(b"%x\r\n%s\r\n" % (len(each), each))
        stream.sendall(b"0\r\n\r\n")
        said = b""
        while block := stream.recv(4096):
            said += block
    assert said.startswith(b"HTTP/1.1 403 ")
    told(broken, before, "the body could not be judged (ZeroDivisionError)")
    assert [each for each in upstream.requests if SENT in each.body or b"behind it" in each.body] == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (0x1, "a WebSocket message could not be judged (ZeroDivisionError)"),
        (0x2, "a WebSocket message could not be judged (ZeroDivisionError)"),
        (0x9, "what goes over a WebSocket could not be judged (ZeroDivisionError)"),
    ],
)
def test_PX30_a_websocket_whose_search_fails_ends(
    broken: EgressGate, upstream: Upstream, kind: int, reason: str
) -> None:
    before = len(broken.reasons())
    with web_socket(broken, "open.test") as stream:
        stream.sendall(frame(kind, SENT) + frame(0x1, b"and later"))
        assert ended(stream)
    told(broken, before, reason)
    assert SENT not in b"".join(upstream.messages)
    assert b"and later" not in upstream.messages
