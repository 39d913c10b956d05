"""The doors of a bundle on a network: bytes both ways, ends handed on, nobody behind one, too many at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottle.sidecars import doors
from tests.conftest import require
from tests.parts.free_port import free_port
from tests.parts.waiting import eventually_now

REPOSITORY = Path(__file__).parents[2]


PYTHONS = [sys.executable, "/usr/bin/python3"]
"""The tests' own, and the system's: a bundle runs on either."""


@pytest.fixture(params=PYTHONS, ids=["own", "system"])
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[int, Path, subprocess.Popen[str]]]:
    """The daemon with one door; its port and the socket it leads to."""
    require(Path(request.param), "needs the system's python3")
    port = free_port()
    behind = tmp_path / "s"
    process = subprocess.Popen(
        [request.param, "-m", "bottle.sidecars.doors"], cwd=REPOSITORY, stdin=-1, stdout=-1, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"address": "127.0.0.1", "doors": {str(port): str(behind)}}))
    process.stdin.close()
    assert json.loads(process.stdout.readline())["event"] == "ready"
    try:
        yield port, behind, process
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.mark.anyio
async def test_bytes_go_both_ways_and_an_end_of_one_way_is_not_the_other_s(
    opened: tuple[int, Path, subprocess.Popen[str]],
) -> None:
    port, behind, _ = opened

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(-1)  # until the caller has said that nothing more comes
        writer.write(data[::-1])
        writer.close()

    async with await asyncio.start_unix_server(answer, behind):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = os.urandom(4 << 20)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent[::-1]
        writer.close()


def test_what_a_caller_said_before_anybody_was_reached_arrives(
    opened: tuple[int, Path, subprocess.Popen[str]],
) -> None:
    port, behind, process = opened
    with socket.socket(socket.AF_UNIX) as gate, socket.socket() as caller:
        gate.bind(str(behind))
        gate.listen()
        gate.settimeout(10)
        process.send_signal(signal.SIGSTOP)
        caller.connect(("127.0.0.1", port))
        caller.sendall(b"CONNECT")
        process.send_signal(signal.SIGCONT)
        reached, _ = gate.accept()
        with reached:
            reached.settimeout(10)
            assert reached.recv(100) == b"CONNECT"


@pytest.mark.anyio
async def test_a_side_that_doesn_t_read_holds_the_other_back(opened: tuple[int, Path, subprocess.Popen[str]]) -> None:
    port, behind, process = opened
    over = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()
        except ConnectionError:
            over.set()

    async with await asyncio.start_unix_server(pour, behind):
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.setblocking(False)
            await asyncio.sleep(0)
            held = await asyncio.to_thread(_settled, process.pid)
            assert held < 64 << 20
        async with asyncio.timeout(10):
            await over.wait()


def _settled(pid: int) -> int:
    """Bytes that a process has resident, once that doesn't grow any more."""
    last = -1

    def still() -> bool:
        nonlocal last
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
        now = next(int(row.split()[1]) for row in rows if row.startswith("VmRSS")) << 10
        settled, last = now == last, now
        return settled

    eventually_now(still, within_s=10, what="its memory stays as it is")
    return last


def test_nobody_behind_a_door_ends_the_connection(opened: tuple[int, Path, subprocess.Popen[str]]) -> None:
    port, _, _ = opened
    with socket.create_connection(("127.0.0.1", port), 5) as caller:
        try:
            assert caller.recv(1) == b""
        except ConnectionResetError:  # as good an end as the other
            return


def test_there_are_only_so_many_at_once(opened: tuple[int, Path, subprocess.Popen[str]]) -> None:
    port, behind, process = opened
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(behind))
        listener.listen(4096)
        many = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(doors.CONNECTIONS)]
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as one_more:
                one_more.settimeout(10)
                try:
                    assert one_more.recv(1) == b""
                except ConnectionResetError:  # as good an end as the other
                    return
        finally:
            for each in many:
                each.close()
    assert process.poll() is None


def test_it_ends_when_it_is_told_to(opened: tuple[int, Path, subprocess.Popen[str]]) -> None:
    _, _, process = opened
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
