"""Bodies that are judged as they pass: other requests don't wait for them, and what waits meanwhile has a bound."""

from __future__ import annotations

import http.client
import io
import random
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.egress_gate import EgressGate
from tests.parts.lone_gate import MIB, NAMES, gate_in
from tests.parts.upstream_tls import RequestHandler, Upstream, body_of

pytestmark = [pytest.mark.attack(backend="alone")]

BLOCK = 65536
FLOOD = 1024 * MIB
SLOW = """
import runpy, time
from bottle.sidecars.egress.passing import Reading

feed = Reading.feed

def fake_feed(reading, block):
    time.sleep(3 if block else 0)
    return feed(reading, block)

Reading.feed = fake_feed
runpy.run_module("bottle.sidecars.egress.serve", run_name="__main__")
"""
"""The daemon, which takes its time for each block and leaves the processor to what goes on beside."""


def dense_archive() -> bytes:
    """Little to send and much to search: some thousand small files, packed."""
    written, chance = io.BytesIO(), random.Random(1)
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for _ in range(4000):
            entry = tarfile.TarInfo(f"d/{chance.randrange(1 << 40):x}.txt")
            content = chance.randbytes(24).hex().encode()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def sent_in_chunks(client: http.client.HTTPConnection, target: str, body: bytes) -> int:
    """The status that a body of no known size is answered with."""
    blocks = (body[at : at + BLOCK] for at in range(0, len(body), BLOCK))
    client.request("POST", target, blocks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    answer = client.getresponse()
    answer.read()
    return answer.status


@pytest.mark.usefixtures("whole_gate")
def test_PX31_other_requests_are_answered_while_a_body_is_judged_as_it_passes(gate: EgressGate) -> None:
    answered: list[float] = []
    over = threading.Event()

    def small() -> None:
        client = gate.client("open.test")
        while not over.is_set():
            client.request("GET", "/small")
            client.getresponse().read()
            answered.append(time.monotonic())
        client.close()

    archive = dense_archive()
    heavy = gate.client("open.test")
    beside = threading.Thread(target=small)
    beside.start()
    try:
        began = time.monotonic()
        assert sent_in_chunks(heavy, "/heavy", archive) == 200
        took = time.monotonic() - began
    finally:
        over.set()
        beside.join(60)
        heavy.close()
    meanwhile = [each for each in answered if 0.25 < (each - began) / took < 0.75]
    assert len(meanwhile) >= 5, (took, len(answered))


class Flooding(RequestHandler):
    """An upstream that answers before it was asked to the end, as fast as it can."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(FLOOD))
        self.end_headers()
        block = bytes(MIB)
        for _ in range(FLOOD // MIB):
            self.wfile.write(block)
        body_of(self)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def slow_gate(tmp_path: Path) -> Iterator[EgressGate]:
    (tmp_path / "upstream").mkdir()
    (tmp_path / "gate").mkdir()
    with (
        Upstream(tmp_path / "upstream", NAMES, handler=lambda _: Flooding) as upstream,
        gate_in(tmp_path / "gate", upstream, within=[str(EgressGate.python()), "-c", SLOW]) as gate,
    ):
        yield gate


@pytest.mark.timeout(120)
def test_PX31_what_an_upstream_says_while_a_body_is_judged_is_not_hoarded(slow_gate: EgressGate) -> None:
    heard = 0
    with slow_gate.tls("open.test") as stream:
        stream.sendall(b"POST /flood HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        stream.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (BLOCK, bytes(BLOCK)))
        stream.settimeout(60)
        while heard < FLOOD and (block := stream.recv(MIB)):
            heard += len(block)
    assert slow_gate.memory() < 128 * MIB
    assert heard >= FLOOD
