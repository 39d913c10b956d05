"""Where the kernel gives a process no more threads, what it does goes on with those it has, or says so."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from agent.enduring_pool import EnduringPool
from opsexec.audit import AuditLog, verify
from opsexec.errors import HostUnsuitable
from opsexec.far.launch import Launch
from opsexec.hosts.aside import Aside
from opsexec.hosts.local_start import Start
from opsexec.hosts.spawner import Spawner
from tests.parts.no_more_threads import no_more_threads
from tests.unit.audit_lines import an_allow

pytestmark = pytest.mark.anyio


async def test_an_agent_s_blocking_calls_are_done_one_after_the_other_and_each_once() -> None:
    asyncio.get_running_loop().set_default_executor(EnduringPool())
    let = threading.Event()
    done: list[int] = []

    def work(number: int) -> int:
        assert let.wait(30)
        done.append(number)
        return number

    with no_more_threads():
        calls = [asyncio.create_task(asyncio.to_thread(work, number)) for number in range(5)]
        await asyncio.sleep(0)
        let.set()
        assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]
    assert done == [0, 1, 2, 3, 4]


async def test_an_audit_puts_each_line_on_disk_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def noted(fd: int) -> None:
        real(fd)
        synced.append(fd)

    monkeypatch.setattr(os, "fdatasync", noted)
    log = AuditLog.open(tmp_path / "audit.jsonl")
    with no_more_threads():
        for lines in (1, 2):
            log.append(an_allow())
            assert len(synced) == lines
        await log.barrier()
    log.append(an_allow())
    log.close()
    assert len(synced) == 3
    assert verify(tmp_path / "audit.jsonl").ok


async def test_a_barrier_is_one_without_a_thread_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog.open(tmp_path / "audit.jsonl", fsync="never")
    log.append(an_allow())
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    with no_more_threads():
        await log.barrier()
    assert len(synced) == 1
    log.close()


async def test_programs_are_started_all_the_same_and_beside_the_loop_again_later() -> None:
    spawner = Spawner()

    async def status(code: int) -> int:
        argv = ("sh", "-c", f"exit {code}")
        start = Start(Launch("no-threads", ("/bin/sh",), ("/bin/sh",), argv, {}, "", b"", False, "", 0, 0), {})
        child, _ = await asyncio.wait_for(spawner.spawn(start), 30)
        started = start.took(child)
        for fd in (started.pidfd, started.stdout, started.stderr):
            os.close(fd)
        return child.wait()

    with no_more_threads():
        assert await status(3) == 3
    assert await status(4) == 4
    assert spawner._thread is not None
    spawner.close()


async def test_what_can_not_be_done_beside_the_loop_says_why() -> None:
    aside = Aside()
    with no_more_threads(), pytest.raises(HostUnsuitable, match="no more threads"):
        await aside.do(os.getpid)
    assert await aside.do(os.getpid) == os.getpid()
    aside.close()
