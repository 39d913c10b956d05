"""Callers who ask and don't read what they are answered."""

from __future__ import annotations

import json
import selectors
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.desk import READS_AT_ONCE
from tests.parts.agent_bytes import HEAD, Usage, answer, connected, get
from tests.parts.limits_table import record
from tests.parts.ops_agent import OpsAgent
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(180)
ASK = b"GET /v1/whoami HTTP/1.1\r\nHost: agent\r\n\r\n"
STALL_S = 2


def telling(bytes_of_answer: int, **limits: Any) -> OpsAgent:
    """An agent whose answer to whoami has about so many bytes."""
    capabilities = [f"fs.read:/srv/{'x' * 80}/{number}" for number in range(bytes_of_answer // 100)]
    capabilities.append("exec:**")
    return OpsAgent([{"principal": f"unix:{current_user()}", "capabilities": capabilities}], **limits)


def ask_without_end(link: socket.socket, most: int) -> int:
    """Ask, again and again, until nothing more is taken for a second; returns how many bytes were."""
    link.settimeout(1.0)
    sent = 0
    try:
        while sent < most:
            sent += link.send(ASK * 100)
    except TimeoutError:
        return sent
    return sent


def given_back(agent: OpsAgent, fds: int) -> None:
    """Wait until the agent has dropped its connections."""
    eventually_now(lambda: Usage.of(agent.pid).fds <= fds, within_s=30, what="who doesn't read is dropped")


def test_answers_that_nobody_reads_are_not_kept_and_their_caller_is_dropped() -> None:
    most = len(ASK) * 20_000
    with telling(16 << 10, stall_timeout_s=STALL_S) as agent:
        answer(agent.socket, get("/v1/whoami"))
        before = Usage.of(agent.pid)
        with connected(agent.socket) as link:
            sent = ask_without_end(link, most)
            assert sent < most, "it goes on reading from who reads nothing"
            during = Usage.of(agent.pid)
            assert answer(agent.socket, get("/v1/whoami")).startswith(b"HTTP/1.1 200")
            given_back(agent, before.fds)
        assert during.rss_kib - before.rss_kib < 32 << 10
        answered = sum(each["step"]["type"] == "whoami" for each in agent.records()) - 2
        saw = f"{answered} answered, then nothing more is read; dropped after {STALL_S} s (limit {STALL_S} s); "
        saw += f"RSS {before.rss_kib // 1024} -> {during.rss_kib // 1024} MiB"
        record("unread", "one connection that asks 20,000 times, 16 KiB each, and reads nothing", saw)


def test_one_long_answer_that_nobody_reads_ends_its_connection() -> None:
    with telling(800 << 10, stall_timeout_s=STALL_S) as agent:
        before = Usage.of(agent.pid)
        with connected(agent.socket) as link:
            link.sendall(ASK)
            assert link.recv(1) == b"H"
            given_back(agent, before.fds)


def test_wherever_an_answer_stops_for_want_of_a_reader_its_connection_ends() -> None:
    script = "head -c 8000 /dev/zero; sleep 0.3; head -c 8000 /dev/zero"
    body = json.dumps({"step": {"type": "exec", "argv": ["sh", "-c", script]}})
    step = f"{HEAD}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    limits = {"stall_timeout_s": STALL_S, "idle_timeout_s": STALL_S, "max_runs_per_principal": 100}
    with telling(8 << 10, **limits) as agent, ExitStack() as held:
        before = Usage.of(agent.pid)
        for answers in range(12, 60):  # the last words go out to a kernel that takes them, some, or none
            held.enter_context(connected(agent.socket)).sendall(ASK * answers + step)
        eventually_now(lambda: Usage.of(agent.pid).fds > before.fds + 40, within_s=20, what="all are there")
        given_back(agent, before.fds + 4)  # what starts programs holds some


def test_who_reads_nothing_does_not_hold_up_the_agents_end() -> None:
    with telling(16 << 10) as agent, connected(agent.socket) as link:
        ask_without_end(link, len(ASK) * 20_000)
        assert agent.end() == 0


def peak_kib(agent: OpsAgent) -> int:
    """The most memory it has ever had, in KiB (proc(5), VmHWM)."""
    lines = Path(f"/proc/{agent.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_files_that_are_asked_for_many_times_at_once_and_not_read_are_held_a_few_times(tmp_path: Path) -> None:
    size, asked = 16 << 20, 20
    with (tmp_path / "file").open("wb") as file:
        file.truncate(size)
    step = {"type": "read_file", "path": str(tmp_path / "file"), "max_bytes": 32 << 20}
    body = json.dumps({"step": step}).encode()
    head = "POST /v1/steps HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nConnection: close\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with OpsAgent() as agent, ExitStack() as held, selectors.DefaultSelector() as selector:
        before = peak_kib(agent)
        for _ in range(asked):
            link = held.enter_context(connected(agent.socket))
            link.sendall(request)
            selector.register(link, selectors.EVENT_READ, [0])
        eventually_now(lambda: len(selector.select(0)) >= READS_AT_ONCE, within_s=60, what="some are answered")
        assert answer(agent.socket, get("/v1/whoami")).startswith(b"HTTP/1.1 200")
        got = []
        while selector.get_map():
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if data := key.fileobj.recv(1 << 20):
                    key.data[0] += len(data)
                else:
                    selector.unregister(key.fileobj)
                    got += key.data
        assert min(got) > size
        assert len(got) == asked
        assert peak_kib(agent) - before < 280 << 10
