"""A step cancelled at any point leaves nothing: no task, no file descriptor, no process, here or on the host."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from opsexec import Exec, OpsError, ReadFile, Shell, Tty
from opsexec.executor import RunOutput
from opsexec.host_executor import HostExecutor
from opsexec.hosts.watchdog import Watchdog
from tests.parts.holdings import Holdings
from tests.parts.process_tree import descendants, processes_with_argument
from tests.parts.sshd import Sshd
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
MARK = "opsexec-cancelled"
SEED = 7
"""Delays are the same in each run of the suite; what they hit still differs with the machine's mood."""


async def input_blocks() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b"x" * 10_000
        await asyncio.sleep(0)


async def terminal(ex: HostExecutor) -> RunOutput:
    opened = await ex.open_tty(Tty(argv=("/bin/sh", "-c", "echo hi; sleep 0.02", MARK)))
    try:
        await opened.read()
        return await opened.wait()
    finally:
        await opened.aclose()


WORK = {
    "a step": lambda ex: ex.run(Exec(argv=("sh", "-c", "echo; sleep 0.02; echo", MARK))),
    "a step with input": lambda ex: ex.run(Exec(argv=("sh", "-c", "cat", MARK)), stdin=input_blocks()),
    "a step with much output": lambda ex: ex.run(Exec(argv=("sh", "-c", "head -c 3000000 /dev/zero", MARK))),
    "an operation": lambda ex: ex.run(ReadFile("/etc/services")),
    "a terminal": terminal,
}


async def cancel_after(delay_s: float, ex: HostExecutor, what: str) -> None:
    """Begin the work and cancel it; it either was over by then, or says that it was cancelled."""
    task = asyncio.ensure_future(WORK[what](ex))
    asyncio.get_running_loop().call_later(delay_s, task.cancel)
    (outcome,) = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 15)
    assert isinstance(outcome, RunOutput | asyncio.CancelledError), repr(outcome)


async def nothing_left(before: Holdings) -> None:
    """No task, file descriptor or child process here, and no program on the host."""

    def left() -> list[str]:
        return [*before.left_since(), *(f"process {pid}" for pid in processes_with_argument(MARK))]

    await eventually(lambda: not left(), within_s=3, what=f"the end of {left()}")


async def warmed(target: Target) -> Holdings:
    """What this process holds once everything that lives as long as itself has been started."""
    Watchdog.get()
    async with target.connect() as ex:
        await asyncio.gather(*(work(ex) for work in WORK.values()))
    return Holdings.now()


@pytest.mark.parametrize("what", list(WORK))
async def test_a_step_cancelled_at_any_moment_leaves_nothing(terminal_target: Target, what: str) -> None:
    rng = random.Random(SEED)
    before = await warmed(terminal_target)
    async with terminal_target.connect() as ex:
        for _ in range(40):
            await cancel_after(rng.random() * 0.04, ex, what)
        await eventually(lambda: not processes_with_argument(MARK), within_s=1, what="the programs' end")
        assert (await ex.run(Exec(argv=("echo", "on")))).text == "on\n"
    await nothing_left(before)


async def test_steps_cancelled_all_at_once_leave_nothing(terminal_target: Target) -> None:
    before = await warmed(terminal_target)
    async with terminal_target.connect() as ex:
        tasks = [asyncio.ensure_future(WORK[what](ex)) for what in [*WORK] * 8]
        await eventually(lambda: any(task.done() for task in tasks), within_s=10, what="the first to end")
        for task in tasks:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        await eventually(lambda: not processes_with_argument(MARK), within_s=1, what="the programs' end")
        assert (await ex.run(Exec(argv=("echo", "on")))).text == "on\n"
    await nothing_left(before)


async def test_a_login_cancelled_at_any_moment_leaves_nothing(ssh_root: Target) -> None:
    rng = random.Random(SEED)
    before = await warmed(ssh_root)
    for _ in range(25):
        async with ssh_root.connect() as ex:
            await cancel_after(rng.random() * 0.15, ex, "a step")
    await nothing_left(before)


async def test_a_session_cancelled_while_it_opens_gives_its_channel_back(ssh_root: Target, sshd: Sshd) -> None:
    """MaxSessions is 10: channels that stay open would soon leave none for a step."""
    rng = random.Random(SEED)
    async with ssh_root.connect() as ex:
        await ex.run(Exec(argv=("true",)))
        for _ in range(3 * sshd.max_sessions):
            other = ex.run(Exec(argv=("true",), run_as="nobody"))
            task = asyncio.ensure_future(other)
            asyncio.get_running_loop().call_later(rng.random() * 0.03, task.cancel)
            await asyncio.gather(task, return_exceptions=True)
            await ex.run(Exec(argv=("true",)))
        assert (await ex.run(Exec(argv=("true",), run_as="nobody"))).ok
        assert sshd.process is not None
        server = sshd.process.pid
        await eventually(
            lambda: len([each for each in descendants(server) if each.comm.startswith("python")]) <= 2,
            within_s=20,
            what="the far halves of the cancelled ones have ended",
        )


@pytest.mark.parametrize("way", ["local", "ssh_root"])
async def test_a_session_of_another_user_cancelled_while_it_opens_leaves_nothing(
    way: str, request: pytest.FixtureRequest
) -> None:
    target: Target = request.getfixturevalue(way)
    rng = random.Random(SEED)
    before = await warmed(target)
    for _ in range(20):
        async with target.connect() as ex:
            task = asyncio.ensure_future(ex.run(Exec(argv=("sh", "-c", "true", MARK), run_as="nobody")))
            asyncio.get_running_loop().call_later(rng.random() * 0.1, task.cancel)
            await asyncio.gather(task, return_exceptions=True)
    await nothing_left(before)


async def test_a_step_cancelled_twice_is_still_ended(target: Target) -> None:
    """The second one comes while the tree is being ended: it is not waited for, and it is ended all the same."""
    nap = "65.0001"
    script = f"trap '' TERM HUP; sleep {nap} & while :; do wait; done"
    async with target.connect() as ex:
        task = asyncio.ensure_future(ex.run(Shell(action="t", script=script)))
        await eventually(lambda: processes_with_argument(nap), within_s=10, what="the step to begin")
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
        await eventually(lambda: not processes_with_argument(nap), within_s=1.5, what="its end")
        assert (await ex.run(Exec(argv=("true",)))).ok


async def test_a_timeout_of_the_callers_own_is_a_cancellation(target: Target) -> None:
    nap = "65.0002"
    async with target.connect() as ex:
        await ex.run(Exec(argv=("true",)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ex.run(Exec(argv=("sleep", nap)))
        await eventually(lambda: not processes_with_argument(nap), within_s=1, what="its end")


async def test_a_failed_sibling_in_a_task_group_ends_the_others(target: Target) -> None:
    nap = "65.0003"
    async with target.connect() as ex:

        async def together() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(ex.run(Exec(argv=("sleep", nap))))
                await eventually(lambda: processes_with_argument(nap), within_s=10, what="the step to begin")
                group.create_task(ex.run(Exec(argv=("false",))))

        with pytest.raises(ExceptionGroup) as caught:
            await together()
        assert [isinstance(error, OpsError) for error in caught.value.exceptions] == [True]
        await eventually(lambda: not processes_with_argument(nap), within_s=1, what="its end")
