"""An agent whose disk takes its time: fsync(2) comes back when the test lets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from opsexec import AgentRpc, Exec
from tests.parts.agent_calls import rpc
from tests.parts.ops_agent import OpsAgent
from tests.parts.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]
SLOW = """
import os, sys, time
def slowly(sync):
    def wait(fd):
        until = time.monotonic() + 30
        while os.path.exists({hangs!r}) and time.monotonic() < until:
            open({waits!r}, "w").close()
            time.sleep(0.01)
        sync(fd)
    return wait
os.fsync, os.fdatasync = slowly(os.fsync), slowly(os.fdatasync)
from agent.cli import main
sys.exit(main())
"""


class Disk:
    """What says whether it hangs, and whether somebody waits for it."""

    def __init__(self, directory: Path) -> None:
        self.hangs = directory / "hangs"
        self.waits = directory / "waits"

    @property
    def program(self) -> tuple[str, str]:
        """The agent on it, as Python's arguments."""
        return ("-c", SLOW.format(hangs=str(self.hangs), waits=str(self.waits)))


@pytest.fixture
async def slow_agent(tmp_path: Path) -> AsyncIterator[tuple[Disk, OpsAgent]]:
    """An agent, on a disk that is as fast as any until a test says otherwise."""
    disk = Disk(tmp_path)
    agent = OpsAgent(program=disk.program, tables="[audit]\nsign = false\n")
    try:
        await asyncio.to_thread(agent.start)
        yield disk, agent
    finally:
        disk.hangs.unlink(missing_ok=True)
        await asyncio.to_thread(agent.__exit__, None, None, None)


async def answers(ex: AgentRpc) -> None:
    """It says who asks, and does a step."""
    async with asyncio.timeout(5):
        await ex.whoami()
        assert (await ex.run(Exec(["/bin/true"]))).ok


async def test_a_detached_run_that_waits_for_the_disk_keeps_nobody_else_waiting(
    slow_agent: tuple[Disk, OpsAgent], tmp_path: Path
) -> None:
    disk, agent = slow_agent
    step = Exec(["/bin/sh", "-c", f"echo x >> {tmp_path}/ran"])
    async with rpc(agent) as ex, rpc(agent) as other:
        await answers(other)
        disk.hangs.touch()
        first = asyncio.create_task(ex.start(step, run="run-on-a-slow-disk"))
        await eventually(disk.waits.exists, within_s=10, what="it is being written down")
        await answers(other)
        again = asyncio.create_task(other.start(step, run="run-on-a-slow-disk"))
        await answers(other)
        assert not first.done()
        assert not again.done()
        disk.hangs.unlink()
        assert await first == await again == "run-on-a-slow-disk"
        assert (await ex.attach("run-on-a-slow-disk")).ok
    assert (tmp_path / "ran").read_text() == "x\n"


async def test_a_caller_who_leaves_while_its_run_waits_for_the_disk_leaves_a_run_that_ends_in_the_audit(
    slow_agent: tuple[Disk, OpsAgent],
) -> None:
    disk, agent = slow_agent
    async with rpc(agent) as ex:
        await answers(ex)
        disk.hangs.touch()
        leaving = asyncio.create_task(ex.start(Exec(["/bin/true"]), run="run-that-was-left"))
        await eventually(disk.waits.exists, within_s=10, what="it is being written down")
        leaving.cancel()
        await asyncio.wait([leaving])
        disk.hangs.unlink()

        def outcomes() -> int:
            return sum(bool(each["outcome"]) for each in agent.records() if each["run"] == "run-that-was-left")

        await eventually(lambda: outcomes() > 0, within_s=10, what="its end is in the audit")
        assert (await ex.attach("run-that-was-left")).ok
        assert outcomes() == 1


async def test_the_end_of_a_detached_run_that_waits_for_the_disk_keeps_nobody_waiting(
    slow_agent: tuple[Disk, OpsAgent], tmp_path: Path
) -> None:
    disk, agent = slow_agent
    async with rpc(agent) as ex, rpc(agent) as other:
        script = f"until test -e {tmp_path}/go; do sleep 0.05; done; kill -9 $PPID"
        run = await ex.start(Exec(["/bin/sh", "-c", script]))
        disk.waits.unlink(missing_ok=True)
        disk.hangs.touch()
        (tmp_path / "go").touch()  # its runner is killed: how it ended is for the agent to write down

        def over() -> bool:
            return any(each["outcome"] for each in agent.records() if each["run"] == run)

        await eventually(over, within_s=10, what="its end is in the audit")
        await answers(other)
        disk.hangs.unlink()
