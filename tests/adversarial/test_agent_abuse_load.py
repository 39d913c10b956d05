"""Callers who take more than their share: connections, time, bytes, runs, lines of the audit."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from agent.connection import LINGER_S
from agent.refusals import COUNT, LINES
from opsexec import AgentRpc, CapabilitySet, Exec, NullAudit, Shell
from opsexec.audit import verify
from opsexec.errors import ConnectionLost, LimitExceeded
from opsexec.hosts.agent_host import UnixWay
from tests.integration.conftest import require_root
from tests.parts.agent_bytes import HEAD, Usage, answer, connected, get
from tests.parts.limits_table import record
from tests.parts.ops_agent import OpsAgent
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually, eventually_now

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Let this process, and the agents it starts, hold the connections of these tests."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def rpc(agent: OpsAgent) -> AgentRpc:
    return AgentRpc(agent.url, capabilities=CapabilitySet.everything(), audit=NullAudit())


def round_trip_s(agent: OpsAgent) -> float:
    """How long a caller who does nothing wrong waits for an answer."""
    begun = time.perf_counter()
    assert answer(agent.socket, get("/v1/whoami")).startswith(b"HTTP/1.1 200")
    return time.perf_counter() - begun


def closed(link: socket.socket) -> bool:
    """True once the other side has ended a connection."""
    link.setblocking(False)
    try:
        while link.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def test_requests_that_drip_in_are_dropped_and_hold_nobody_up() -> None:
    count, idle_s = 200, 2
    with OpsAgent(idle_timeout_s=idle_s, request_timeout_s=idle_s, max_connections_per_principal=400) as agent:
        before = Usage.of(agent.pid)
        with ExitStack() as held:
            links = [held.enter_context(connected(agent.socket)) for _ in range(count)]
            begun, worst, sent = time.monotonic(), 0.0, 0
            body = HEAD.encode() + b"Content-Length: 100000\r\n\r\n"
            open_links = dict(enumerate(links))
            while open_links and time.monotonic() - begun < 4 * idle_s + 5:
                for number, link in list(open_links.items()):
                    if closed(link):
                        del open_links[number]
                        continue
                    try:  # half of them in the head, half of them in the body
                        link.send((HEAD.encode() if number % 2 else body)[sent : sent + 1] or b"x")
                    except (BrokenPipeError, ConnectionResetError):
                        del open_links[number]
                sent += 1
                worst = max(worst, round_trip_s(agent))
                time.sleep(0.02)
            took = time.monotonic() - begun
        assert not open_links
        assert worst < 3.0
        eventually_now(lambda: Usage.of(agent.pid).fds <= before.fds + 2, within_s=20, what="descriptors are back")
        saw = f"all dropped after {took:.1f} s (limit {idle_s} s each for head and body); "
        record(
            "slowloris",
            f"{count} connections, a byte each now and then",
            saw + f"others wait {worst * 1000:.0f} ms at most",
        )


def test_a_thousand_idle_connections_cost_little_and_hold_nobody_up() -> None:
    count = 1000
    with OpsAgent(max_connections=1200, max_connections_per_principal=1100) as agent:
        round_trip_s(agent)
        before = Usage.of(agent.pid)
        with ExitStack() as held:
            for _ in range(count):
                held.enter_context(connected(agent.socket))
            eventually_now(lambda: Usage.of(agent.pid).fds >= before.fds + count, within_s=20, what="all are taken")
            during = Usage.of(agent.pid)
            waits = max(round_trip_s(agent) for _ in range(5))
        eventually_now(
            lambda: Usage.of(agent.pid).fds <= before.fds + 2, within_s=20, what="descriptors are given back"
        )
        after = Usage.of(agent.pid)
        assert waits < 1.0
        assert during.rss_kib - before.rss_kib < 40_000
        saw = f"RSS {before.rss_kib // 1024} -> {during.rss_kib // 1024} -> {after.rss_kib // 1024} MiB, descriptors "
        saw += f"{before.fds} -> {during.fds} -> {after.fds}; others wait {waits * 1000:.0f} ms at most"
        record("idle-connections", f"{count:,} opened, held, closed", saw)


def test_connections_over_the_bound_are_closed_at_once() -> None:
    with OpsAgent(max_connections=100, max_connections_per_principal=50) as agent, ExitStack() as held:
        links = [held.enter_context(connected(agent.socket)) for _ in range(300)]
        eventually_now(lambda: sum(map(closed, links)) == 250, within_s=10, what="those over the bound are closed")
        for link in links:
            link.close()
        eventually_now(
            lambda: answer(agent.socket, get("/v1/whoami")).startswith(b"HTTP/1.1 200"),
            within_s=20,
            what="it serves again",
        )
        record("over-the-bound", "300 at once from one user, 50 allowed", "250 closed at once; served again after")


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.opsexec.frames"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_and_never_held(kind: str, chunked: bool) -> None:
    size = 256 << 20
    with OpsAgent(max_request_bytes=64 << 10) as agent:
        round_trip_s(agent)
        before = Usage.of(agent.pid)
        first = b'{"step": "' if kind.endswith("json") else b"\x01\x10\x00\x00\x00"
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        block = b"a" * 65536
        piece = b"10000\r\n" + block + b"\r\n" if chunked else block
        with connected(agent.socket) as link:
            link.sendall(f"{HEAD}Content-Type: {kind}\r\n{length}\r\n\r\n".encode())
            link.sendall(b"%x\r\n%s\r\n" % (len(first), first) if chunked else first)
            sent = 0
            try:
                while sent < size:
                    link.sendall(piece)
                    sent += len(block)
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                pass  # it reads no more
            said = b""
            try:
                while data := link.recv(65536):
                    said += data
            except ConnectionResetError:
                pass
        after = Usage.of(agent.pid)
        assert said.startswith(b"HTTP/1.1 400") or sent < size
        assert after.rss_kib - before.rss_kib < 8_000
        assert agent.records()[-1]["decision"] == "deny"
        saw = f"400; what still comes is thrown away for {LINGER_S:.0f} s at most, never held ({sent >> 20} MiB here); "
        saw += f"RSS {before.rss_kib // 1024} -> {after.rss_kib // 1024} MiB"
        record(
            "body-over-limit",
            f"{size >> 20} MiB where 64 KiB are allowed; JSON and frames, with and without length",
            saw,
        )


async def test_two_hundred_runs_at_once_all_end_well_and_one_more_is_refused(tmp_path: Path) -> None:
    count = 200
    wait = Shell("test.wait", f"echo $$; while [ ! -e {tmp_path}/go ]; do sleep 0.3; done; echo done")
    with OpsAgent(max_runs_per_principal=count, max_connections_per_principal=400) as agent:
        await asyncio.to_thread(round_trip_s, agent)
        before = Usage.of(agent.pid)
        async with AsyncExitStack() as held:  # each of these has at most 16 requests under way
            several = [await held.enter_async_context(rpc(agent)) for _ in range(count // 16 + 2)]
            ex = several.pop()
            begun = time.monotonic()
            runs = [asyncio.create_task(several[at % len(several)].run(wait)) for at in range(count)]
            await eventually(
                lambda: sum(each["decision"] == "allow" for each in agent.records()) >= count,
                within_s=60,
                what="all run",
            )
            started = time.monotonic() - begun
            during = Usage.of(agent.pid)
            with pytest.raises(LimitExceeded):
                await ex.run(Exec(["/bin/true"]))
            (tmp_path / "go").touch()
            outputs = await asyncio.gather(*runs)
        assert all(each.exit_code == 0 and each.stdout.endswith(b"\ndone\n") for each in outputs)
        assert len({each.stdout for each in outputs}) == count
        await eventually(
            lambda: Usage.of(agent.pid).fds <= before.fds + 4, within_s=20, what="descriptors are given back"
        )
        after = Usage.of(agent.pid)
        outcomes = [each for each in agent.records() if each["outcome"]]
        assert len({each["run"] for each in outcomes}) == len(outcomes) == count
        saw = f"all under way in {started:.1f} s, the 201st refused, {count} outcomes; RSS {before.rss_kib // 1024} -> "
        saw += f"{during.rss_kib // 1024} -> {after.rss_kib // 1024} MiB, "
        saw += f"descriptors {before.fds} -> {during.fds} -> {after.fds}"
        record("concurrent-runs", f"{count} steps of one user that wait for each other", saw)


def test_without_descriptors_the_agent_waits_for_some() -> None:
    with OpsAgent(max_connections=1000, max_connections_per_principal=1000, idle_timeout_s=3) as agent:
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (60, 60))
        with ExitStack() as held:
            for _ in range(90):
                held.enter_context(connected(agent.socket))
            eventually_now(lambda: Usage.of(agent.pid).fds >= 59, within_s=10, what="it has no more")
            said = answer(agent.socket, get("/v1/whoami"), within_s=20)
            assert said == b"" or said.startswith((b"HTTP/1.1 403", b"HTTP/1.1 200", b"HTTP/1.1 503"))
        eventually_now(lambda: Usage.of(agent.pid).fds < 30, within_s=20, what="they are given back")
        assert round_trip_s(agent) < 5
        assert {each["principal"] for each in agent.records()} <= {None, f"unix:{current_user()}"}
        saw = "serves again as soon as they are closed; nothing ended"
        record("no-descriptors", "90 connections where 60 descriptors are allowed", saw)


async def test_without_descriptors_what_runs_detached_is_seen_to_later(tmp_path: Path) -> None:
    with OpsAgent(max_connections=1000, max_connections_per_principal=1000) as agent:
        async with rpc(agent) as ex:
            run = await ex.start(Shell("test.wait", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"))
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (60, 60))
        with ExitStack() as held:
            for _ in range(90):
                held.enter_context(connected(agent.socket))
            await eventually(lambda: "can't be seen to yet" in agent.said(), within_s=30, what="it has no more")
            (tmp_path / "go").touch()
        await eventually(
            lambda: any(each["run"] == run and each["outcome"] for each in agent.records()), within_s=30, what="its end"
        )
        assert agent.end() == 0


FLOOD = """
import socket, sys, time
request, until, done = sys.argv[2].encode(), time.time() + float(sys.argv[3]), 0
while time.time() < until:
    s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1]); s.sendall(request)
    while s.recv(65536): pass
    s.close(); done += 1
print(done)
"""


def test_who_is_refused_without_end_fills_no_log(plain_user: str) -> None:
    require_root()
    seconds = 6.0
    request = get("/v1/whoami").decode()
    with OpsAgent(mode="0666") as agent:
        argv = ["runuser", "-u", plain_user, "--", "/usr/bin/python3", "-I", "-c", FLOOD, str(agent.socket)]
        flood = subprocess.Popen([*argv, request, str(seconds)], stdout=subprocess.PIPE)
        begun, worst = time.monotonic(), 0.0
        while time.monotonic() - begun < seconds - 1:
            worst = max(worst, round_trip_s(agent))
        said, _ = flood.communicate(timeout=30)
        asked = int(said)
        agent.end()
        lines = [each for each in agent.records() if each["principal"] == f"unix:{plain_user}"]
    counted = sum(int(each["reason"].split()[0]) for each in lines if each["step"]["type"] == COUNT)
    assert counted + sum(each["step"]["type"] != COUNT for each in lines) == asked
    assert asked > 500
    assert len(lines) < LINES + 20
    assert worst < 3.0
    saw = f"{len(lines)} lines tell of all {asked:,}; others wait {worst * 1000:.0f} ms at most"
    record("flood", f"{asked:,} requests in {seconds:.0f} s", saw)


def test_the_chain_holds_through_a_flood(plain_user: str) -> None:
    with OpsAgent(mode="0666") as agent:
        for _ in range(LINES * 3):
            answer(agent.socket, get("/v1/nothing"))
        agent.end()
        assert verify(agent.state / "audit.jsonl").ok


async def test_a_client_that_finds_no_room_asks_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as held:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen(0)
        held.enter_context(connected(tmp_path / "agent.sock"))
        opening = asyncio.create_task(UnixWay(str(tmp_path / "agent.sock")).open("agent"))
        assert not (await asyncio.wait([opening], timeout=0.2))[0]
        held.enter_context(listener.accept()[0])
        link = await asyncio.wait_for(opening, 20)
        taken = held.enter_context(listener.accept()[0])
        link.abort(ConnectionLost("enough"))
        taken.settimeout(20)
        assert await asyncio.to_thread(taken.recv, 1) == b""
