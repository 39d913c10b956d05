"""What never answers, never ends or is given up leaves no process, task or file descriptor behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import Exec, Stat, WriteFile
from opsexec.errors import ConnectionLost, HostUnsuitable, OpsError, StepTimeout
from opsexec.far import frames
from opsexec.hosts import local_session
from tests.conftest import require
from tests.integration.conftest import require_root
from tests.parts.stuck_mount import FUSE, stuck_mount
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_hung_way_to_become_another_user_is_ended_when_it_is_given_up(local, tmp_path, monkeypatch, how):
    monkeypatch.setattr(local_session, "OPEN_S", 0.5 if how == "deadline" else 60.0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    mark = tmp_path / "pids"
    for name in ("runuser", "sudo"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntrap '' HUP PIPE TERM\nsleep 600 &\necho $$ $! > {mark}\nwait\n")
        program.chmod(0o755)
    async with local.connect() as ex:
        running = asyncio.create_task(ex.run(Exec(["id"], run_as="nobody")))
        await eventually(lambda: mark.exists() and mark.read_text().endswith("\n"), within_s=20, what="its start")
        pids = [int(pid) for pid in mark.read_text().split()]
        if how == "cancel":
            running.cancel()
            await asyncio.wait([running])
        else:
            with pytest.raises(HostUnsuitable):
                await running
    await eventually(lambda: not any(map(_lives, pids)), within_s=3, what="its end")


def _lives(pid: int) -> bool:
    """Whether it runs; one that ends between the open and the read of its line answers ESRCH, not ENOENT."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def stuck(shared_dir) -> Iterator[Path]:
    require_root()
    require(FUSE, "needs /dev/fuse")
    with stuck_mount(shared_dir / "stuck") as place:
        yield place


@pytest.mark.parametrize(
    "step",
    [
        lambda place: Stat(path=f"{place}/x", timeout_s=1),
        lambda place: WriteFile(path=f"{place}/x", content="x", timeout_s=1),
        lambda place: Exec(["true"], creates=f"{place}/x", timeout_s=1),
        lambda place: Exec(["true"], cwd=str(place / "x"), timeout_s=1),
        lambda place: Exec([f"{place}/program"], timeout_s=1),
    ],
    ids=["stat", "write", "creates", "cwd", "program"],
)
async def test_a_file_system_that_hangs_hangs_no_more_than_its_step(target, stuck, step):
    """Neither the deadline, nor a step beside it, nor the one after it waits for the file system."""
    async with target.connect() as ex:
        assert (await ex.run(Exec(["true"]))).ok
        async with asyncio.timeout(10):
            hanging = asyncio.create_task(ex.run(step(stuck)))
            with pytest.raises(OpsError) as caught:
                await hanging
        assert isinstance(caught.value, (StepTimeout, ConnectionLost)), caught.value
        async with asyncio.timeout(5):
            assert (await ex.run(Exec(["true"]))).ok


CALLER = """
import asyncio, sys
from opsexec import CapabilitySet, connect, StepTimeout
from opsexec.audit.null import NullAudit
from opsexec.steps import Stat

async def main():
    async with connect("local:", capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex:
        try:
            await ex.run(Stat(path=sys.argv[1], timeout_s=1))
        except StepTimeout:
            print("timed out")

asyncio.run(main())
"""


async def test_a_process_ends_while_a_file_system_hangs_under_it(stuck):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, f"{stuck}/x", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(10):
            assert (await process.communicate())[0] == b"timed out\n"
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_session_that_freezes_is_given_up_and_the_next_step_gets_a_new_one(ssh_target, monkeypatch):
    monkeypatch.setattr(frames, "BEAT_S", 0.2)
    monkeypatch.setattr(frames, "LEASE_S", 1.0)
    async with ssh_target.connect() as ex:
        session = int((await ex.run(Exec(["sh", "-c", "echo $PPID"]))).text)
        running = asyncio.create_task(ex.run(Exec(["sleep", "60"])))
        await asyncio.sleep(0)
        os.kill(session, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(ConnectionLost, match="no word"):
                    await running
                assert (await ex.run(Exec(["true"]))).ok
        finally:
            os.kill(session, signal.SIGCONT)
