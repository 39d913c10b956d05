"""What a caller began ends when the caller goes or loses its rights, also where nobody takes its input just then."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from opsexec import ConnectionLost, Exec, Facts, Shell, Tty
from opsexec.hosts import agent_exchange
from opsexec.steps.base import Step
from opsexec.wire import ERROR, HEAD_BYTES, STDIN, encode_request, frame
from tests.parts.agent_calls import rpc
from tests.parts.fake_localapi import FakeLocalApi, whois_answer
from tests.parts.free_port import free_port
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.process_tree import processes_with_argument
from tests.parts.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]
RIGHTS_S = 15.0
ALICE = "tailnet:alice@example.com"


def opening(path: str, step: Step, *frames: bytes) -> bytes:
    """The beginning of a request whose input goes on."""
    body = encode_request(step, run=secrets.token_hex(8), streams_stdin=True) + b"".join(frames)
    head = f"POST {path} HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
    return head.encode() + body + b"\r\n"


@pytest.mark.parametrize("way", ["close", "half a close"])
async def test_a_caller_who_goes_behind_input_that_nobody_takes_is_missed_at_once(
    ops_agent: OpsAgent, way: str
) -> None:
    number = f"66.{secrets.randbelow(10**6):06}"
    flood = opening("/v1/steps", Shell("t.deaf", f"exec sleep {number}"), frame(STDIN, b"k" * (1 << 20)))
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(ops_agent.socket))
        link.setblocking(False)
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(link, flood))
        await eventually(lambda: processes_with_argument(number), within_s=10, what="it runs")
        await asyncio.wait([sending], timeout=0.3)
        sending.cancel()
        await asyncio.wait([sending])
        if way == "close":
            link.close()
        else:
            link.shutdown(socket.SHUT_WR)
        await eventually(lambda: not processes_with_argument(number), within_s=3, what="its tree ends")


@pytest.fixture
async def on_tailnet(tmp_path: Path) -> AsyncIterator[tuple[FakeLocalApi, OpsAgent]]:
    """An agent that asks a stand-in for tailscaled who its callers on 127.0.0.1 are."""
    async with FakeLocalApi(tmp_path / "tailscaled.sock").serving() as fake:
        grants = [{"principal": ALICE, "capabilities": EVERYTHING}]
        running = OpsAgent(grants, tailscaled_socket=fake.path, tailnet_port=free_port())
        try:
            await asyncio.to_thread(running.start)
            yield fake, running
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.mark.parametrize("how", ["it is cancelled", "its deadline passes"])
async def test_of_an_agent_that_stands_still_no_step_is_said_to_have_ended(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_exchange, "GRACE_S", 0.3)
    monkeypatch.setattr(agent_exchange, "LEAVE_S", 0.3)
    number = f"66.{secrets.randbelow(10**6):06}"
    with OpsAgent() as agent:
        async with rpc(agent) as ex:
            step = Exec(["sleep", number], timeout_s=1.0 if how == "its deadline passes" else None)
            running = asyncio.create_task(ex.run(step))
            await eventually(lambda: processes_with_argument(number), within_s=10, what="it runs")
            agent.send(signal.SIGSTOP)
            try:
                if how == "it is cancelled":
                    running.cancel()
                with pytest.raises(ConnectionLost, match="no word"):
                    await asyncio.wait_for(running, 10)
                assert processes_with_argument(number)
            finally:
                agent.send(signal.SIGCONT)
            await eventually(lambda: not processes_with_argument(number), within_s=10, what="its tree ends")


async def test_who_only_reads_leaves_an_agent_that_stands_still_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_exchange, "LEAVE_S", 0.3)
    with OpsAgent() as agent:
        async with rpc(agent) as ex:
            await ex.run(Facts())
            agent.send(signal.SIGSTOP)
            try:
                reading = asyncio.create_task(ex.run(Facts()))
                await asyncio.wait([reading], timeout=0.1)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(reading, 10)
            finally:
                agent.send(signal.SIGCONT)


async def test_a_terminal_ends_with_its_callers_rights_and_says_why(
    on_tailnet: tuple[FakeLocalApi, OpsAgent],
) -> None:
    fake, running = on_tailnet
    number = f"66.{secrets.randbelow(10**6):06}"
    reader, writer = await asyncio.open_connection("127.0.0.1", running.tailnet_port)
    try:
        writer.write(opening("/v1/tty", Tty(argv=("/bin/sh", "-c", f"echo up; trap '' HUP TERM; sleep {number}"))))
        await asyncio.wait_for(reader.readuntil(b"up"), 10)
        began = time.monotonic()
        fake.whois = whois_answer(Tags=["tag:other"])
        rest = await asyncio.wait_for(reader.read(-1), RIGHTS_S + 5)
        assert time.monotonic() - began < RIGHTS_S
    finally:
        writer.transport.abort()
    at = rest.rfind(bytes([ERROR]) + b"\0\0")
    assert at >= 0, rest
    said = rest[at + HEAD_BYTES :]
    assert b"denied" in said
    assert f"no longer {ALICE}".encode() in said
    assert b"the caller left" not in said
    await eventually(lambda: not processes_with_argument(number), within_s=3, what="its tree ends")
    kinds = [(each["step"] or {}).get("type") for each in running.records()]
    assert "identity" in kinds
