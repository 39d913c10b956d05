"""What isn't certain is nobody: a tailscaled (a stand-in) that says odd things, nothing, or is somebody else's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import agent.tailnet
from agent.config import TailnetTable
from agent.errors import AgentUnable
from agent.tailscaled import Tailscaled
from opsexec import AgentRpc, CapabilitySet, NullAudit
from opsexec.errors import ConnectionLost, HostUnreachable, OpsError
from opsexec.hosts.local_api import LocalApi, TailnetUnavailable
from tests.parts.fake_localapi import FakeLocalApi, whois_answer
from tests.parts.free_port import free_port
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.tailnet_raw import whoami_request
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
ALICE = "tailnet:alice@example.com"
BOUND_S = 8.0
"""Seconds within which even a hung tailscaled leads to an answer."""


@asynccontextmanager
async def doubtful(directory: Path, **limits: Any) -> AsyncIterator[tuple[FakeLocalApi, OpsAgent]]:
    """An agent that asks a fake LocalAPI about callers on 127.0.0.1, as with userspace networking."""
    grants = [{"principal": ALICE, "capabilities": EVERYTHING}]
    grants += [
        {"principal": f"tailnet:{each}", "capabilities": ["facts:os"]} for each in ("tag:ci", "mallory@other.net")
    ]
    async with FakeLocalApi(directory / "tailscaled.sock").serving() as fake:
        running = OpsAgent(grants, tailscaled_socket=fake.path, tailnet_port=free_port(), **limits)
        try:
            await asyncio.to_thread(running.start)
            yield fake, running
        finally:
            fake.released.set()
            await asyncio.to_thread(running.__exit__, None, None, None)


async def ask(running: OpsAgent, *headers: str) -> bytes:
    """What a caller from 127.0.0.1 is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.tailnet_port)
    try:
        writer.write(whoami_request(*headers))
        async with asyncio.timeout(20):
            return await reader.read(-1)
    finally:
        writer.transport.abort()


def error_of(said: bytes) -> dict[str, Any]:
    (line,) = [line for line in said.splitlines() if line.startswith(b"{")]
    found = json.loads(line)["error"]
    assert isinstance(found, dict)
    return found


async def test_who_is_denied_and_why_is_said_and_recorded(tmp_path: Path) -> None:
    mallory = {"LoginName": "mallory@other.net"}
    table: list[tuple[Any, str]] = [
        (whois_answer(Sharer=12, UserProfile=mallory), "shared in from another tailnet"),
        (whois_answer(Hostinfo={"ShareeNode": True}, UserProfile=mallory), "of another tailnet"),
        (whois_answer(Expired=True), "has expired"),
        (whois_answer(KeyExpiry="2020-01-01T00:00:00Z"), "has expired"),
        (whois_answer(UnsignedPeerAPIOnly=True), "not a full member"),
        (whois_answer(StableID="n-self"), "this machine itself"),
        (whois_answer(Addresses=["100.64.0.9/32"]), "this machine itself"),
        (whois_answer(UserProfile={"ID": 1, "LoginName": "tagged-devices"}), "no user and no tag"),
        (whois_answer(UserProfile={"LoginName": "nobody@example.com"}), "nobody@example.com has no grant"),
        (whois_answer(Tags=["tag:nothing"]), "tag:nothing has no grant"),
        (404, "is no node's"),
        (403, "answered whois with HTTP 403"),
        (500, "answered whois with HTTP 500"),
        (b"", "doesn't answer as one does"),
        (b"SSH-2.0-OpenSSH\r\n", "doesn't answer as one does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "doesn't answer as one does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "doesn't answer as one does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not one of a node"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", "not JSON"),
    ]
    async with doubtful(tmp_path) as (fake, running):
        for answer, why in table:
            fake.whois = answer
            said = await ask(running, "Tailscale-User-Login: alice@example.com")
            assert said.startswith(b"HTTP/1.1 403"), (answer, said)
            error = error_of(said)
            assert (error["code"], error["layer"]) == ("denied", "agent")
            assert why in error["reason"], (answer, error)
            last = running.records()[-1]
            assert (last["decision"], why in last["reason"]) == ("deny", True)
            assert (last["principal"] is None) == ("has no grant" not in why)
        fake.whois = whois_answer()  # nothing of all that was remembered
        assert (await ask(running)).startswith(b"HTTP/1.1 200")


async def test_a_tailscaled_that_hangs_delays_nobody_else_and_is_waited_for_briefly(tmp_path: Path) -> None:
    async with doubtful(tmp_path) as (fake, running):
        fake.whois = "hang"
        began = time.monotonic()
        said = await ask(running)
        assert time.monotonic() - began < BOUND_S
        assert "did not say who this is" in error_of(said)["reason"] or "no answer within" in error_of(said)["reason"]
        fake.whois = whois_answer()
        assert (await ask(running)).startswith(b"HTTP/1.1 200")


async def test_without_tailscaled_nobody_is_anybody_and_the_agent_lives(tmp_path: Path) -> None:
    async with doubtful(tmp_path) as (fake, running):
        away = tmp_path / "away"
        fake.path.rename(away)
        error = error_of(await ask(running))
        assert error["code"] == "denied"
        assert "nobody says who this is" in error["reason"]
        away.rename(fake.path)
        fake.status = {**fake.status, "BackendState": "Stopped"}
        assert "not connected (Stopped)" in error_of(await ask(running))["reason"]
        fake.status = {**fake.status, "BackendState": "Running"}
        assert (await ask(running)).startswith(b"HTTP/1.1 200")


async def test_a_caller_of_another_user_is_not_tailscaled_whatever_whois_says(tmp_path: Path, plain_user: str) -> None:
    async with doubtful(tmp_path) as (_, running):
        script = (
            "import socket, sys\ns = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=10)\n"
            "s.sendall(sys.stdin.buffer.read())\nsaid = b''\n"
            "while block := s.recv(65536): said += block\nsys.stdout.buffer.write(said)"
        )
        argv = ["runuser", "-u", plain_user, "--", "/usr/bin/python3", "-I", "-c", script, str(running.tailnet_port)]
        done = await asyncio.to_thread(
            subprocess.run, argv, input=whoami_request(), capture_output=True, timeout=20, check=True
        )
        assert "is not tailscaled's connection" in error_of(done.stdout)["reason"]


async def test_callers_who_wait_to_be_known_are_counted(tmp_path: Path) -> None:
    async with doubtful(tmp_path, max_connections_per_principal=3) as (fake, running):
        fake.whois = "hang"
        links = [await asyncio.open_connection("127.0.0.1", running.tailnet_port) for _ in range(6)]
        try:
            for _, writer in links:
                writer.write(whoami_request())
            dropped = 0
            for reader, _ in links:
                try:
                    said = await asyncio.wait_for(reader.read(-1), BOUND_S)
                except ConnectionResetError:
                    said = b""
                dropped += not said
            assert dropped == 3
        finally:
            for _, writer in links:
                writer.transport.abort()
        fake.whois = whois_answer()
        await eventually_200(running)


async def test_who_is_nobody_takes_no_place_from_who_is_somebody(tmp_path: Path) -> None:
    async with doubtful(tmp_path, max_connections_per_principal=3) as (fake, running):
        fake.whois = 404
        links = []
        try:
            for number in range(1, 11):
                links.append(await asyncio.open_connection("127.0.0.1", running.tailnet_port))
                await eventually(lambda: questions(fake) == number, within_s=5, what="it is asked about")  # noqa: B023 - it is done with before the next
            fake.whois = whois_answer()
            assert (await ask(running)).startswith(b"HTTP/1.1 200")
        finally:
            for _, writer in links:
                writer.transport.abort()


def questions(fake: FakeLocalApi) -> int:
    return sum("whois" in each for each in fake.asked)


async def eventually_200(running: OpsAgent) -> None:
    end = time.monotonic() + BOUND_S
    while not (await ask(running)).startswith(b"HTTP/1.1 200"):
        assert time.monotonic() < end


@pytest.mark.parametrize("after", ["hang", "another machine with the same tag"])
@pytest.mark.timeout(90)
async def test_who_an_open_connection_is_is_asked_again(tmp_path: Path, after: str) -> None:
    async with doubtful(tmp_path) as (fake, running):
        fake.whois = whois_answer(Tags=["tag:ci"])
        reader, writer = await asyncio.open_connection("127.0.0.1", running.tailnet_port)
        try:
            writer.write(whoami_request(close=False))
            assert b"tailnet:tag:ci" in await asyncio.wait_for(reader.readuntil(b'"grants"'), 10)
            before = len(fake.asked)
            await eventually(lambda: len(fake.asked) > before, within_s=12, what="it is asked again")
            await eventually(lambda: reader.at_eof() is False, within_s=20, what="it goes on")
            fake.whois = "hang" if after == "hang" else whois_answer(Tags=["tag:ci"], StableID="n-other")
            began = time.monotonic()
            async with asyncio.timeout(20):
                while await reader.read(65536):
                    pass
            assert time.monotonic() - began < 15
        finally:
            writer.transport.abort()
        (last,) = [each for each in running.records() if (each["step"] or {}).get("type") == "identity"]
        assert (last["decision"], last["principal"]) == ("deny", "tailnet:tag:ci")


async def test_an_agent_without_a_tailnet_says_so_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.tailnet, "START_S", 0.2)
    table = TailnetTable(socket=str(tmp_path / "none"), program=None)
    with pytest.raises(AgentUnable, match=r"no tailnet to listen on: tailscaled at .* can't be reached"):
        await agent.tailnet.Tailnet(table, free_port()).bind()


async def test_a_socket_of_another_users_says_nothing(tmp_path: Path, plain_user: str, shared_dir: Path) -> None:
    path = shared_dir / "tailscaled.sock"
    script = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "print('up', flush=True)\nc, _ = s.accept()\nsys.stdout.buffer.write(c.recv(99))"
    )
    argv = ["runuser", "-u", plain_user, "--", "/usr/bin/python3", "-I", "-c", script, str(path)]
    other = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"up\n"
    with pytest.raises(TailnetUnavailable, match="may not say who is who"):
        await LocalApi(str(path)).get("/localapi/v0/status", 5)
    assert await other.stdout.read() == b""
    await other.wait()


@pytest.mark.parametrize("mode", [0o775, 0o4757])
async def test_a_program_that_others_can_change_is_not_asked(tmp_path: Path, mode: int) -> None:
    program = tmp_path / "tailscale"
    program.write_text("#!/bin/sh\necho '{}'\n")
    program.chmod(mode)
    said = Tailscaled(str(tmp_path / "none"), str(program))
    with pytest.raises(TailnetUnavailable, match="is not root's own"):
        await said.status(5)


# -- the caller's side ----------------------------------------------------------------------------------------------


def web_behind(fake: FakeLocalApi) -> AgentRpc:
    """The way to a node called web, by what this tailscaled says."""
    return AgentRpc(
        "tailnet://web", capabilities=CapabilitySet.nothing(), audit=NullAudit(), tailscaled_socket=str(fake.path)
    )


WEB = {"ID": "n-web", "DNSName": "web.tail.test.", "TailscaleIPs": ["100.64.0.4"], "Online": True}


@pytest.mark.parametrize(
    ("whois", "dial", "says"),
    [
        (whois_answer(StableID="n-other", Name="web.tail.test."), 502, "not web.tail.test's"),
        (whois_answer(StableID="n-web", Name="other.tail.test."), 502, "other.tail.test's, not"),
        (whois_answer(StableID="n-web", Name="web.tail.test.", Addresses=["100.64.0.5/32"]), 502, "not web"),
        (whois_answer(StableID="n-web", Name="web.tail.test.", Sharer=3), 502, "shared in"),
        (whois_answer(StableID="n-web", Name="web.tail.test.", Expired=True), 502, "expired"),
        (404, 502, "is no node's"),
        (500, 502, "HTTP 500"),
        (whois_answer(StableID="n-web", Name="web.tail.test."), 502, "tailscaled could not connect"),
        (whois_answer(StableID="n-web", Name="web.tail.test."), b"", "tailscaled closed the connection"),
        (whois_answer(StableID="n-web", Name="web.tail.test."), b"HTTP/1.1 101 x\r\n\r\nGET", "before anything was"),
        (whois_answer(StableID="n-web", Name="web.tail.test."), b"HTTP/1.1 200 OK\r\n\r\n", "could not connect"),
        (whois_answer(StableID="n-web", Name="web.tail.test."), b"x" * 20_000, "could not connect"),
    ],
)
async def test_a_caller_speaks_to_nobody_but_the_node_it_asked_for(
    tmp_path: Path, whois: Any, dial: Any, says: str
) -> None:
    async with FakeLocalApi(tmp_path / "s").serving() as fake:
        fake.status = {**fake.status, "Peer": {"k": WEB}}
        fake.whois, fake.dial = whois, dial
        for url in ("tailnet://web", "agent+tcp://100.64.0.4:7227"):
            async with AgentRpc(
                url, capabilities=CapabilitySet.nothing(), audit=NullAudit(), tailscaled_socket=str(fake.path)
            ) as ex:
                with pytest.raises(HostUnreachable, match=says) as failed:
                    await ex.whoami()
            assert failed.value.host
        knows = "connect" in says or "closed" in says or "before" in says
        assert any("dial" in each for each in fake.asked) == knows


@pytest.mark.parametrize("online", [True, False])
async def test_a_caller_waits_no_longer_than_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: bool
) -> None:
    monkeypatch.setattr("opsexec.hosts.agent_tailnet.CONNECT_S", 0.5)
    monkeypatch.setattr("opsexec.hosts.agent_tailnet.WAKE_S", 0.75)
    dialled_s = "0.75" if online else "0.5"
    async with FakeLocalApi(tmp_path / "s").serving() as fake:
        fake.status = {**fake.status, "Peer": {"k": {**WEB, "Online": online}}}
        known = whois_answer(StableID="n-web", Name="web.tail.test.")
        for fake.whois, fake.dial, within_s in [("hang", 502, "0.5"), (known, "hang", dialled_s)]:
            async with web_behind(fake) as ex:
                with pytest.raises(OpsError, match=f"no connection within {within_s} s"):
                    await ex.whoami()


async def test_a_connection_that_is_not_made_gets_another_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WireGuard sets out with keys that nobody has any more, and TCP's own next question is half a minute away."""
    monkeypatch.setattr("opsexec.hosts.agent_tailnet.AGAIN_S", 0.1)
    async with FakeLocalApi(tmp_path / "s").serving() as fake:
        fake.status = {**fake.status, "Peer": {"k": WEB}}
        fake.whois = whois_answer(StableID="n-web", Name="web.tail.test.")
        fake.dials = ["hang", "hang"]
        fake.dial = b"HTTP/1.1 101 x\r\n\r\n"  # and then it closes, which shows that this one was taken
        async with web_behind(fake) as ex:
            with pytest.raises(ConnectionLost):
                await ex.whoami()
            await eventually(lambda: fake.left == 2, within_s=10, what="both that hung are closed")
        assert sum("dial" in each for each in fake.asked) == 3


async def test_without_tailscaled_a_caller_is_told(tmp_path: Path) -> None:
    async with AgentRpc(
        "tailnet://web",
        capabilities=CapabilitySet.nothing(),
        audit=NullAudit(),
        tailscaled_socket=str(tmp_path / "none"),
    ) as ex:
        with pytest.raises(TailnetUnavailable, match="can't be reached") as failed:
            await ex.whoami()
    assert failed.value.exit_code == 3
    assert failed.value.hint
