"""Bytes that mean two things, requests that outlive their rights: nothing runs that nobody may ask for."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import Shell
from opsexec.wire import encode_request
from tests.parts.agent_bytes import answer
from tests.parts.fake_localapi import FakeLocalApi, whois_answer
from tests.parts.free_port import free_port
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually, eventually_now

pytestmark = pytest.mark.timeout(90)
ME = f"unix:{current_user()}"
JSON = "Content-Type: application/json\r\nAccept: application/x-ndjson\r\n"
HEAD = f"POST /v1/steps HTTP/1.1\r\nHost: agent\r\n{JSON}"


@pytest.fixture(scope="module")
def agent() -> Iterator[OpsAgent]:
    """An agent with little patience; its caller may do everything."""
    with OpsAgent(idle_timeout_s=2, request_timeout_s=2) as running:
        yield running


def touch(file: Path) -> bytes:
    """A step that leaves a file, as JSON."""
    return json.dumps({"step": {"type": "exec", "argv": ["/usr/bin/touch", str(file)]}}).encode()


def whole(body: bytes, more: str = "") -> bytes:
    return f"{HEAD}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(
    body: bytes, coding: str = "Transfer-Encoding: chunked\r\n", size: str = "{:x}\r\n", end: str = ""
) -> bytes:
    return f"{HEAD}{coding}\r\n".encode() + size.format(len(body)).encode() + body + f"\r\n0\r\n{end}\r\n".encode()


def lengths(body: bytes, *lines: str) -> bytes:
    return (HEAD + "".join(f"{line}\r\n" for line in lines) + "\r\n").format(len(body)).encode() + body


AMBIGUOUS = {
    "both lengths, chunks first": lambda b: lengths(
        b"0\r\n\r\n" + b, "Content-Length: {}", "Transfer-Encoding: chunked"
    ),
    "both lengths, length first": lambda b: chunked(b, "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
    "two lengths": lambda b: lengths(b, "Content-Length: {}", "Content-Length: 0"),
    "the same length twice": lambda b: lengths(b, "Content-Length: {0}, {0}"),
    "a length with a sign": lambda b: lengths(b, "Content-Length: +{}"),
    "a hexadecimal length": lambda b: lengths(b, "Content-Length: 0x20"),
    "a name with a space": lambda b: lengths(b, "Content-Length : {}"),
    "no length at all": lambda b: lengths(b, "Content_Length: {}"),
    "an unknown coding": lambda b: chunked(b, "Transfer-Encoding: xchunked\r\n"),
    "a coding beside chunks": lambda b: chunked(b, "Transfer-Encoding: gzip, chunked\r\n"),
    "chunks of chunks": lambda b: chunked(b, "Transfer-Encoding: chunked, chunked\r\n"),
    "two codings": lambda b: chunked(b, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    "a tab before the coding": lambda b: chunked(b, "Transfer-Encoding:\x0bchunked\r\n"),
    "a folded coding": lambda b: chunked(b, "Transfer-Encoding:\r\n chunked\r\n"),
    "a chunk's line without CR": lambda b: chunked(b, size="{:x}\n"),
    "a line end in an extension": lambda b: chunked(b, size="{:x};a\nb\r\n"),
    "a negative chunk": lambda b: chunked(b, size="-{:x}\r\n"),
    "a chunk with 0x": lambda b: chunked(b, size="0x{:x}\r\n"),
    "a chunk that overflows": lambda b: chunked(b, size="1000000000000000{:02x}\r\n"),
    "a length as a trailer": lambda b: chunked(b, end="Content-Length: 9\r\n"),
    "a coded body": lambda b: lengths(b, "Content-Encoding: gzip", "Content-Length: {}"),
    "lines without CR": lambda b: lengths(b, "Content-Length: {}").replace(b"\r\n", b"\n"),
    "a bare CR": lambda b: lengths(b, "X: a\rContent-Length: 0", "Content-Length: {}"),
    "a NUL in a header": lambda b: lengths(b, "X: a\0b", "Content-Length: {}"),
    "an upgrade to WebSocket": lambda b: lengths(b, "Connection: Upgrade", "Upgrade: websocket", "Content-Length: {}"),
    "an upgrade to HTTP/2": lambda b: lengths(b, "Connection: Upgrade", "Upgrade: h2c", "Content-Length: {}"),
    "HTTP/2's first words": lambda b: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b,
    "HTTP/1.0": lambda b: lengths(b, "Content-Length: {}").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a tunnel": lambda b: b"CONNECT agent:80 HTTP/1.1\r\nHost: agent\r\n\r\n" + b,
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_is_read_in_none(agent: OpsAgent, tmp_path: Path, name: str) -> None:
    """Neither it nor what comes behind it on the same connection is run, and the refusal is recorded."""
    before = len(agent.records())
    behind = whole(touch(tmp_path / "behind"), "Connection: close\r\n")
    said = answer(agent.socket, AMBIGUOUS[name](touch(tmp_path / "first")) + behind)
    assert re.match(rb"HTTP/1\.[01] 400 ", said), said
    assert len(re.findall(rb"HTTP/1\.[01] ", said)) == 1
    assert list(tmp_path.iterdir()) == []
    kinds = [(each["decision"], each["outcome"]) for each in agent.records()[before:]]
    assert all(each in (("deny", None), (None, None)) for each in kinds), kinds


def test_requests_behind_one_another_are_each_judged_and_recorded(agent: OpsAgent, tmp_path: Path) -> None:
    before = len(agent.records())
    sent = whole(touch(tmp_path / "one")) + chunked(touch(tmp_path / "two"))
    answer(agent.socket, sent + whole(touch(tmp_path / "three"), "Connection: close\r\n"))
    assert {each.name for each in tmp_path.iterdir()} == {"one", "two", "three"}
    lines = agent.records()[before:]
    assert [each["decision"] for each in lines if each["decision"]] == ["allow"] * 3
    assert len({each["run"] for each in lines}) == 3


def test_a_body_that_outlives_the_grants_of_its_head_is_judged_by_those_of_its_end(tmp_path: Path) -> None:
    with OpsAgent([{"principal": ME, "capabilities": ["exec:**"]}]) as agent, socket.socket(socket.AF_UNIX) as link:
        body = touch(tmp_path / "ran")
        link.settimeout(10)
        link.connect(str(agent.socket))
        link.sendall(f"{HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        eventually_now(lambda: waits_for_more(agent), within_s=20, what="its head is read")
        agent.write_config([{"principal": ME, "capabilities": ["facts:os"]}])
        agent.send(signal.SIGHUP)
        eventually_now(lambda: "reloaded: 1 grants" in agent.said(), within_s=10, what="the grant is gone")
        link.sendall(body[-1:])
        said = b""
        while block := link.recv(65536):
            said += block
        assert b'"denied"' in said
        assert not (tmp_path / "ran").exists()


def waits_for_more(agent: OpsAgent) -> bool:
    """Another connection, made later, has been answered."""
    return b" 200 " in answer(agent.socket, b"GET /v1/whoami HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")


@pytest.mark.anyio
async def test_what_waits_behind_a_running_step_is_not_done_once_the_rights_are_gone(tmp_path: Path) -> None:
    port = free_port()
    async with FakeLocalApi(tmp_path / "tailscaled.sock").serving() as fake:
        grants = [{"principal": "tailnet:alice@example.com", "capabilities": EVERYTHING}]
        grants += [{"principal": "tailnet:tag:other", "capabilities": EVERYTHING}]
        running = OpsAgent(grants, tailscaled_socket=fake.path, tailnet_port=port)
        try:
            await asyncio.to_thread(running.start)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            first = encode_request(Shell("t.x", f"touch {tmp_path}/on; sleep 60"), run=secrets.token_hex(8))
            head = f"POST /v1/steps HTTP/1.1\r\nHost: agent\r\nContent-Length: {len(first)}\r\n\r\n".encode()
            writer.write(head + first + whole(touch(tmp_path / "behind")))
            await eventually(lambda: (tmp_path / "on").exists(), within_s=10, what="the first runs")
            fake.whois = whois_answer(Tags=["tag:other"])  # somebody else, who may do the same
            said = await asyncio.wait_for(reader.read(-1), 25)
            assert b"no longer tailnet:alice@example.com" in said
            writer.transport.abort()
            assert not (tmp_path / "behind").exists()
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)
