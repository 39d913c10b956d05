"""Ending one step reaches all of its own processes, however they hide, and nobody else's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import Exec, Shell, StepTimeout
from tests.parts.process_tree import process_table
from tests.parts.targets import Target
from tests.parts.tree_caller import argv
from tests.parts.trees import LATER_S, SOON_S, Tree, gone, grow, stand
from tests.parts.waiting import eventually, eventually_now

pytestmark = pytest.mark.anyio


@pytest.fixture
def daemon() -> Iterator[Tree]:
    """What a step leaves behind on purpose; ended after the test."""
    tree = Tree.new("left behind")
    yield tree
    for pid in tree.pids():
        os.kill(pid, signal.SIGKILL)


async def leave(daemon: Tree, target: Target) -> None:
    """Start the daemon by a step that ends well."""
    async with target.connect() as ex:
        await ex.run(Shell(action="t", script=daemon.script))
        await stand([daemon])


async def still_there(daemon: Tree) -> bool:
    """Ask as often as a late killer would need: sshd, the far half and the watchdog end within this time."""
    begun = time.monotonic()
    while time.monotonic() - begun < 1.0:
        if not daemon.pids():
            return False
        await asyncio.sleep(0.02)
    return True


async def test_a_daemon_that_a_finished_step_left_lives_on(target: Target, daemon: Tree) -> None:
    await leave(daemon, target)
    assert await still_there(daemon)


async def test_a_daemon_outlives_the_end_of_later_steps(target: Target, daemon: Tree) -> None:
    async with target.connect() as ex:
        await ex.run(Shell(action="t", script=daemon.script))
        await stand([daemon])
        with pytest.raises(StepTimeout):
            await ex.run(Exec(argv=("sleep", "60"), timeout_s=0.3))
        task = asyncio.create_task(ex.run(Exec(argv=("sleep", "60.5"))))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert daemon.pids()
    assert await still_there(daemon)


async def test_a_daemon_outlives_sigkill_of_the_caller_that_left_it(target: Target, daemon: Tree) -> None:
    """The caller has one step behind it and one under way: only the latter goes."""
    running = Tree.new("plain")
    process = await asyncio.create_subprocess_exec(
        *argv(target, [daemon, running], on_terminal=False), cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        ended = await asyncio.wait_for(process.stdout.readline(), 30)
        assert ended.decode().strip() == daemon.nap  # until then it is the step's own
        await stand([running, daemon])
        process.kill()
        await gone([running], LATER_S)
        assert await still_there(daemon)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_ending_one_step_leaves_the_others_alone(target: Target) -> None:
    one, other = Tree.new("setsid child"), Tree.new("setsid child")
    async with target.connect() as ex:
        ending, going = (asyncio.create_task(grow(ex, tree)) for tree in (one, other))
        await stand([one, other])
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        await gone([one], SOON_S)
        assert other.pids()
        assert not going.done()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        await gone([other], SOON_S)


HIDING = {
    "an environment that was emptied": "env -i setsid sleep {nap} & wait",
    "a child that is born on SIGTERM": "trap 'setsid sleep {nap} & exit' TERM HUP; sleep {nap} & wait",
    "a tree that never stops forking": "for i in $(seq 300); do setsid sleep {nap} & sleep 0.01; done; wait",
    "a deep tree": "f() {{ if [ $1 -gt 0 ]; then (f $(($1-1))); else sleep {nap}; fi; true; }}; f 30; true",
    "another name": "exec -a '[kworker/0:0]' sleep {nap}",
}


@pytest.mark.parametrize("how", list(HIDING))
async def test_no_hiding_place_within_a_step_is_missed(target: Target, how: str) -> None:
    tree = Tree.new("plain")
    script = HIDING[how].format(nap=tree.nap)
    async with target.connect() as ex:
        task = asyncio.create_task(ex.run(Shell(action="t", script=script, interpreter="/bin/bash")))
        await stand([tree])
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone([tree], begun + SOON_S - time.monotonic())


async def test_a_tree_that_was_stopped_is_ended(target: Target) -> None:
    """A stopped process takes no signal but SIGKILL and SIGCONT."""
    tree = Tree.new("grandchild")
    async with target.connect() as ex:
        task = asyncio.create_task(grow(ex, tree))
        await stand([tree])
        (pid,) = tree.pids()
        parent = next(process.ppid for process in process_table() if process.pid == pid)
        for stopped in (pid, parent):
            os.kill(stopped, signal.SIGSTOP)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone([tree], SOON_S)


NESTED = """
import asyncio, sys
from opsexec import CapabilitySet, NullAudit, Shell, connect
async def main():
    async with connect("local:", capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex:
        await ex.run(Shell(action="inner", script=sys.argv[1]))
asyncio.run(main())
"""


async def test_a_step_that_runs_steps_itself_is_ended_with_theirs(local: Target) -> None:
    tree = Tree.new("daemon")
    command = (sys.executable, "-c", NESTED, tree.script)
    async with local.connect() as ex:
        inner = ex.run(Exec(argv=command, cwd=str(Path(__file__).parents[2])))
        task = asyncio.create_task(inner)
        await stand([tree])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone([tree], SOON_S)


async def test_finished_steps_leave_no_zombies(target: Target) -> None:
    async with target.connect() as ex:
        await asyncio.gather(*(ex.run(Exec(argv=("true",))) for _ in range(20)))
        with pytest.raises(StepTimeout):
            await ex.run(Exec(argv=("sleep", "60"), timeout_s=0.2))
        parents = {os.getpid()}
        table = process_table()
        while True:
            more = {p.pid for p in table if p.ppid in parents} | parents
            if more == parents:
                break
            parents = more
        assert [p for p in table if p.pid in parents and p.state == "Z"] == []


async def test_a_watchdog_that_was_killed_is_replaced(local: Target) -> None:
    """Its promise can't be kept by a dead process: the next run starts another."""
    from opsexec.hosts.watchdog import Watchdog

    async with local.connect() as ex:
        await ex.run(Exec(argv=("true",)))
        pid = Watchdog.get()._process.pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: Watchdog.get()._process.pid != pid, within_s=20, what="another watchdog")
        assert (await ex.run(Exec(argv=("true",)))).ok


def test_an_interpreter_that_ends_while_steps_run_leaves_none() -> None:
    """sys.exit from a callback: no cancellation, no closing, only the end of the process."""
    tree = Tree.new("daemon")
    program = (
        "import asyncio, os, sys\n"
        "from opsexec import CapabilitySet, NullAudit, Shell, connect\n"
        "async def main():\n"
        "    ex = connect('local:', capabilities=CapabilitySet.everything(), audit=NullAudit())\n"
        "    asyncio.get_running_loop().call_later(0.7, os._exit, 3)\n"
        "    await ex.run(Shell(action='t', script=sys.argv[1]))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tree.script], cwd=Path(__file__).parents[2], timeout=20, check=False
    )
    assert done.returncode == 3
    eventually_now(lambda: not tree.pids(), within_s=LATER_S, what="the end of the tree")
