"""Programs started beside the loop: nothing that begins is lost, whoever gives up and whenever."""

from __future__ import annotations

import asyncio
import os
import pwd
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opsexec.errors import OpsError
from opsexec.far.launch import Launch
from opsexec.hosts import spawner as spawning
from opsexec.hosts.local import LocalHost
from opsexec.hosts.local_spawn import Child
from opsexec.hosts.local_start import Start, end
from opsexec.hosts.port import ProcessSpec
from opsexec.hosts.spawner import Spawner
from opsexec.recorder import Recorder
from tests.conftest import require
from tests.parts.process_tree import processes_with_argument
from tests.parts.unix_user import unix_user

pytestmark = pytest.mark.anyio

BOUND_S = 30.0
RUN = f"spawner-test-{os.getpid()}"
"""Of this worker alone: whatever carries it is ended."""


def launch(*argv: str, cwd: str = "") -> Launch:
    return Launch(RUN, (argv[0],), (argv[0],), argv, {}, cwd, b"", False, "", 0, 0)


class HeldStart(Start):
    """A start that its thread does not come back from until it is let."""

    def __init__(self, *argv: str) -> None:
        super().__init__(launch(*argv), {})
        self.begun = threading.Event()
        self.let = threading.Event()
        self.child: Child | None = None

    def spawn(self) -> Child:
        self.begun.set()
        assert self.let.wait(BOUND_S)
        self.child = super().spawn()
        return self.child


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def is_gone(child: Child) -> bool:
    """True once it was reaped."""
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def children_running(word: str) -> int:
    """How many children of this process have this word in their argv."""
    pids = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    return sum(word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in pids)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def pipes() -> set[str]:
    """The pipes that this process holds."""
    links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in open_fds()]
    return {link for link in links if "/pipe:[" in link}


async def test_what_a_thread_starts_comes_back_as_a_child() -> None:
    spawner = Spawner()
    start = Start(launch("/bin/sh", "-c", "exit 7"), {})
    child, cancelled = await spawner.spawn(start)
    started = start.took(child)
    assert cancelled is None
    assert child.wait() == 7
    for fd in (started.pidfd, started.stdout, started.stderr):
        os.close(fd)
    spawner.close()


async def test_what_a_start_raises_is_raised_where_it_was_asked_for_and_its_pipes_are_closed() -> None:
    spawner = Spawner()
    before = open_fds()
    start = Start(launch("/bin/true", cwd="/nowhere/at/all"), {})
    with pytest.raises(FileNotFoundError, match="/nowhere/at/all") as raised:
        await spawner.spawn(start)
    assert start.explained(raised.value).code == "no_cwd"
    assert open_fds() == before
    spawner.close()


async def test_a_cancelled_wait_brings_the_child_with_the_cancellation() -> None:
    spawner = Spawner()
    start = HeldStart("/bin/sleep", "60")
    asked = asyncio.create_task(spawner.spawn(start))
    await until(start.begun.is_set)
    asked.cancel()
    await asyncio.sleep(0)
    asked.cancel()  # and once more, while it waits for what has begun
    await asyncio.sleep(0)
    start.let.set()
    child, cancelled = await asked
    assert isinstance(cancelled, asyncio.CancelledError)
    assert child.poll() is None
    assert end(child, RUN) == 0
    start.close()
    spawner.close()


def hold_up(spawner: Spawner) -> None:
    """Let the loop stand still until the thread is done: it is to be told so in its next turn, before anything else."""
    deadline = time.monotonic() + BOUND_S
    while not spawner._done:
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def test_a_cancellation_just_as_it_is_there_leaves_the_child_to_who_asked() -> None:
    spawner = Spawner()
    start = HeldStart("/bin/sleep", "60")
    asked = asyncio.create_task(spawner.spawn(start))
    await until(start.begun.is_set)
    start.let.set()
    hold_up(spawner)
    asked.cancel()
    child, cancelled = await asked
    await asyncio.sleep(0)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert child.poll() is None
    assert end(child, RUN) == 0
    start.close()
    spawner.close()


async def test_a_cancellation_just_as_it_has_failed_closes_its_pipes_once() -> None:
    spawner = Spawner()
    closed: list[bool] = []

    class Fails(HeldStart):
        def spawn(self) -> Child:
            super().spawn()
            raise OSError("no")

        def close(self) -> None:
            closed.append(True)
            super().close()

    start = Fails("/bin/true")
    asked = asyncio.create_task(spawner.spawn(start))
    await until(start.begun.is_set)
    start.let.set()
    hold_up(spawner)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await asyncio.sleep(0)
    assert closed == [True]
    assert start.child is not None
    start.child.wait()
    spawner.close()


async def test_a_start_that_takes_too_long_is_ended_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "LATE_S", 0.05)
    spawner = Spawner()
    before = pipes()
    start = HeldStart("/bin/sleep", "60")
    asked = asyncio.create_task(spawner.spawn(start))
    await until(start.begun.is_set)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert len(pipes()) > len(before), "its pipes stay open: the program is about to be given them"
    start.let.set()
    await until(lambda: start.child is not None and is_gone(start.child))
    await until(lambda: pipes() == before)
    spawner.close()


@pytest.fixture
def somebody() -> Iterator[str]:
    require(os.geteuid() == 0, "needs root: it makes unix users")
    with unix_user(home=False) as name:
        yield name


def sleeping(seconds: str) -> list[str]:
    """The processes that are `sleep SECONDS` itself, and not what is about to become it."""
    found = [Path(f"/proc/{pid}/comm") for pid in processes_with_argument(seconds)]
    return [str(each) for each in found if each.exists() and each.read_text() == "sleep\n"]


class LateStart(HeldStart):
    """A held start whose thread comes back, once it is let, when `sleep SECONDS` has begun."""

    def __init__(self, seconds: str, *argv: str) -> None:
        super().__init__(*argv)
        self.seconds = seconds
        self.there = threading.Event()
        self.back = threading.Event()

    def spawn(self) -> Child:
        child = super().spawn()
        deadline = time.monotonic() + BOUND_S
        while not sleeping(self.seconds):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.there.set()
        assert self.back.wait(BOUND_S)
        return child


async def given_up(spawner: Spawner, start: LateStart) -> None:
    """Ask for a start, give it up, and let it begin then."""
    asked = asyncio.create_task(spawner.spawn(start))
    await until(start.begun.is_set)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    start.let.set()
    await until(start.there.is_set)


async def test_a_late_program_that_became_another_user_in_another_session_is_ended(
    monkeypatch: pytest.MonkeyPatch, somebody: str
) -> None:
    monkeypatch.setattr(spawning, "LATE_S", 0.05)
    spawner = Spawner()
    # runuser -c waits in its own session for the other user's shell in a new one.
    seconds = f"{os.getpid()}.73"  # another worker's may sleep beside it
    start = LateStart(seconds, "/usr/sbin/runuser", somebody, "-c", f"sleep {seconds}; true")
    await given_up(spawner, start)
    start.back.set()
    await until(lambda: start.child is not None and is_gone(start.child))
    await until(lambda: not sleeping(seconds))
    spawner.close()


async def test_a_late_program_that_can_not_be_ended_is_told_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, somebody: str
) -> None:
    monkeypatch.setattr(spawning, "LATE_S", 0.05)
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))
    spawner = Spawner()
    before = pipes()
    seconds = f"{os.getpid()}.74"
    start = LateStart(seconds, "/usr/sbin/runuser", "-u", somebody, "--", "sleep", seconds)
    await given_up(spawner, start)
    os.seteuid(pwd.getpwnam("nobody").pw_uid)  # as a plain user's program that sudo made another's
    try:
        start.back.set()
        turns = 0
        deadline = time.monotonic() + BOUND_S
        while not told and time.monotonic() < deadline:
            turns += 1
            await asyncio.sleep(0.005)
    finally:
        os.seteuid(0)
    assert "".join(told).startswith(f"1 processes of run {RUN}")
    assert turns > 5, "the loop went on meanwhile"
    await until(lambda: not pipes() - before)
    assert start.child is not None
    assert end(start.child, RUN) == 0
    spawner.close()


def test_a_start_that_outlives_its_loop_is_ended() -> None:
    start = HeldStart("/bin/sleep", "60")

    async def leave() -> None:
        asked = asyncio.ensure_future(Spawner().spawn(start))
        await until(start.begun.is_set)
        assert not asked.done()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(leave())
    finally:
        pending = asyncio.all_tasks(loop)
        loop.close()
    start.let.set()
    deadline = time.monotonic() + BOUND_S
    while start.child is None or not is_gone(start.child):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for task in pending:
        task.get_coro().close()  # the loop is gone: it is left off


def spec(*argv: str, run: str) -> ProcessSpec:
    return ProcessSpec(run=run, programs=(argv[0],), admitted=(argv[0],), argv=argv, env={})


async def test_many_at_once_each_have_their_own_output_and_status() -> None:
    host = LocalHost()

    async def one(number: int) -> tuple[int | None, bytes]:
        recorder = Recorder()
        ended = await host.run_process(
            spec("/bin/sh", "-c", f"echo {number}; exit {number}", run=f"{RUN}-many-{number}"), recorder
        )
        return ended.exit_code, recorder.tail(0)

    found = await asyncio.gather(*(one(number) for number in range(100)))
    assert found == [(number, b"%d\n" % number) for number in range(100)]
    await host.aclose()


async def test_cancelled_at_any_moment_nothing_is_left() -> None:
    host = LocalHost()
    keeps_busy = asyncio.create_task(host.run_process(spec("/bin/sleep", "600", run=f"{RUN}-busy"), Recorder()))
    await until(lambda: host._processes)
    await host.run_process(spec("/bin/true", run=f"{RUN}-first"), Recorder())  # the thread has what it starts with
    before = open_fds()
    for turns in range(40):
        task = asyncio.create_task(host.run_process(spec("/bin/sleep", "601", run=f"{RUN}-{turns}"), Recorder()))
        for _ in range(turns // 4):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: len(open_fds()) <= len(before) + 1)
    assert len(host._processes) == 1
    assert children_running("601") == 0
    keeps_busy.cancel()
    await asyncio.wait([keeps_busy])
    await host.aclose()


async def test_closing_ends_what_is_being_started() -> None:
    host = LocalHost()
    many = [
        asyncio.create_task(host.run_process(spec("/bin/sleep", "600", run=f"{RUN}-closing-{number}"), Recorder()))
        for number in range(20)
    ]
    await until(lambda: host._processes)
    await host.aclose()
    ended = await asyncio.gather(*many, return_exceptions=True)
    assert all(isinstance(each, OpsError) for each in ended)
    assert not host._processes


def test_what_another_part_of_the_process_has_reaped_is_ended_all_the_same() -> None:
    start = Start(launch("/bin/sh", "-c", "exit 7"), {})
    child = start.spawn()
    start.close()
    assert os.waitpid(child.pid, 0)[0] == child.pid
    assert end(child, RUN) == 0
