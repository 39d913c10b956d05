"""What a client of its own may send to ops-agent, and that none of it ends the agent."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from collections.abc import Iterator

import msgspec
import pytest

from opsexec import (
    Exec,
    Tty,
)
from opsexec.audit import verify
from opsexec.errors import (
    HostUnreachable,
)
from opsexec.wire import STDIN, encode_request, frame
from tests.parts.agent_calls import JSON, http, json_lines, post, rpc
from tests.parts.ops_agent import OpsAgent

pytestmark = pytest.mark.anyio


async def test_curl_can_ask_too(ops_agent: OpsAgent) -> None:
    body = json.dumps({"step": {"type": "exec", "argv": ["sh", "-c", "echo out; printf '\\377' >&2; exit 4"]}})
    lines = json_lines(http(ops_agent, *post(body.encode(), *JSON)))
    shown = {name: value for line in lines for name, value in line.items()}
    assert shown["stdout"] == "out\n"
    assert shown["stderr_base64"] == "/w=="
    assert shown["result"]["exit_code"] == 4


@pytest.fixture(scope="module")
def small() -> Iterator[OpsAgent]:
    """An agent with tight limits."""
    with OpsAgent(
        max_request_bytes=4096,
        request_timeout_s=0.5,
        idle_timeout_s=1,
        max_connections=20,
        max_connections_per_principal=20,
    ) as running:
        yield running


async def test_bad_input_is_answered_and_recorded_and_never_ends_the_agent(small: OpsAgent) -> None:
    run = secrets.token_hex(8)
    good = encode_request(Exec(["true"]), run=run)
    bodies = [
        b"", b"\x01", b"\x01\x00\x00\x00\x05hello", b"\x01\xff\xff\xff\xff", b"\x7f\x00\x00\x00\x00", good[:-1],
        frame(STDIN, b"x") + good,
        encode_request(Exec(["true"]), run="../../etc"), encode_request(Exec(["true"]), run=""),
        frame(1, msgspec.msgpack.encode({"run": run, "step": {"type": "exec", "argv": "id"}})),
        frame(1, msgspec.msgpack.encode({"run": run, "step": {"type": "exec", "argv": []}})),
        frame(1, msgspec.msgpack.encode({"run": run, "step": {"type": "shell"}, "principal": "unix:root"})),
        frame(1, b"\x81" * 4000), frame(1, b"x" * 5000),
        encode_request(Exec(["true"]), run=run, attenuation=({"capabilities": ["nonsense"]},)),
        encode_request(Tty(["/bin/sh"]), run=run),
    ]  # fmt: skip
    for body in bodies:
        before = len(small.records())
        said = http(small, *post(body, "Accept: application/x-ndjson"))
        assert said.startswith(b"HTTP/1.1 400"), (body[:40], said)
        assert json_lines(said)[0]["error"]["code"] in ("protocol", "usage", "bad_step", "bad_capability")
        assert [line["decision"] for line in small.records()[before:]] == ["deny"]
    for text in (b"{", b"[]", b"{}", b'{"step": 1}', b"[" * 4000, b"\xff", b'{"step": {"type": "x"}}', b" " * 9000):
        assert http(small, *post(text, *JSON)).startswith(b"HTTP/1.1 400"), text[:20]
    typo = b'{"step": {"type": "exec", "argv": ["true"], "runas": "nobody"}}'  # must not run as the agent's own user
    said = http(small, *post(typo, *JSON))
    assert said.startswith(b"HTTP/1.1 400"), said
    assert b"unknown field `runas`" in said
    for head in ("GET /", "NONSENSE", "GET /v1/nothing HTTP/1.1\nHost: a", "PUT /v1/steps HTTP/1.1\nHost: a", "\0\0\0"):
        said = http(small, head + "\nConnection: close")
        assert b" 400 " in said.partition(b"\r\n")[0], said
        assert small.records()[-1]["decision"] == "deny"
    for path in (
        "/v1/runs/..%2f..%2fetc",
        "/v1/runs/x",
        "/v1/runs/AAAAAAAAAAAA",
        "/v1/runs/0123456789abcdef?offset=-1",
    ):
        said = http(small, f"GET {path} HTTP/1.1\nHost: a\nConnection: close")
        assert said.startswith(b"HTTP/1.1 400"), said
    assert http(small, "GET /v1/whoami HTTP/1.1\nHost: a\nOps-Protocol: 9.0\nConnection: close").startswith(
        b"HTTP/1.1 400"
    )
    async with rpc(small) as ex:
        await ex.run(Exec(["true"]))
    assert "Traceback" not in small.said()
    assert verify(small.state / "audit.jsonl").ok


async def test_a_request_that_names_what_can_be_nothing_of_its_kind_is_recorded(ops_agent: OpsAgent) -> None:
    asked = [
        ("GET", "/v1/runs/NO"), ("GET", "/v1/runs/0123456789abcdef?offset=-1"), ("POST", "/v1/runs/NO/signal"),
        ("POST", "/v1/runs/0123456789abcdef/signal"), ("GET", "/v1/tty/NO"), ("GET", "/v1/tty/NO/recording"),
        ("POST", "/v1/consent/NO"), ("GET", "/v1/schedules/no%20name"), ("GET", "/v1/events?interval=soon"),
    ]  # fmt: skip
    for method, target in asked:
        before = len(ops_agent.records())
        head = f"{method} {target} HTTP/1.1\nHost: a\nConnection: close\nContent-Length: 1"
        answer = http(ops_agent, head, b"{")
        assert b" 400 " in answer.splitlines()[0] or b" 403 " in answer.splitlines()[0], target
        new = ops_agent.records()[before:]
        assert [record["decision"] for record in new] == ["deny"], target
        assert new[0]["reason"], target


async def test_a_slow_client_is_dropped_in_bounded_time(small: OpsAgent) -> None:
    """A request that drips in holds a connection no longer than the idle time, and its body no longer than its own."""

    def drip(data: bytes) -> float:
        begun = time.monotonic()
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(0.05)
            link.connect(str(small.socket))
            for at in range(10_000):
                try:
                    link.sendall(data[at : at + 1] or b"x")
                    if link.recv(100) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        return time.monotonic() - begun

    head = b"POST /v1/steps HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n"
    assert await asyncio.to_thread(drip, b"GET /v1/whoami HTTP/1.1\r\nX: " + b"y" * 3000) < 3
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(str(small.socket))
        link.sendall(head + b"\x01\x00")
        assert b"400" in await asyncio.to_thread(link.recv, 1000)


async def test_connections_over_the_bound_are_closed_and_come_free_again(small: OpsAgent) -> None:
    held = []
    for _ in range(30):
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(small.socket))
        held.append(link)
    try:
        async with rpc(small) as ex:
            with pytest.raises(HostUnreachable):
                await ex.run(Exec(["true"]))
    finally:
        for link in held:
            link.close()
    async with rpc(small) as ex:
        await ex.run(Exec(["true"]))
