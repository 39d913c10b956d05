"""Deadlines, output limits and slow or broken sinks: a run stays within its bounds, and its tree goes with it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from opsexec import Exec, OpsError, Shell, StepTimeout
from opsexec.errors import LimitExceeded
from opsexec.executor import Stream
from opsexec.far.frames import OUTPUT_WINDOW
from opsexec.recorder import HIGH_WATER
from tests.parts.process_tree import processes_with_argument
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


WRITER = """
import os, sys
notes = os.open(sys.argv[1], os.O_WRONLY)
for n in range(512):
    rest = bytes(65536)
    while rest:
        rest = rest[os.write(1, rest):]
    os.pwrite(notes, b"%5d" % (n + 1), 0)
"""


class GatedSink:
    """Takes nothing before `gate` is opened."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.size = 0

    async def write(self, stream: Stream, data: bytes) -> None:
        await self.gate.wait()
        self.size += len(data)


class BrokenSink:
    """Raises with the first block, or with the one that passes `after` bytes."""

    def __init__(self, after: int = 0) -> None:
        self.room = after

    async def write(self, stream: Stream, data: bytes) -> None:
        self.room -= len(data)
        if self.room <= 0:
            raise LookupError("the sink broke")


async def test_a_passed_deadline_is_a_typed_error_and_ends_the_program(target: Target) -> None:
    nap = "62.0001"
    async with target.connect() as ex:
        await ex.run(Exec(argv=("true",)))
        begun = time.monotonic()
        with pytest.raises(StepTimeout, match=r"0\.5 s") as caught:
            await ex.run(Exec(argv=("sleep", nap), timeout_s=0.5))
        assert time.monotonic() - begun < 8  # the program would go on for a minute
        assert not processes_with_argument(nap)
    assert caught.value.host == ex.host
    assert caught.value.hint


async def test_a_program_that_ignores_sigterm_is_killed_at_its_deadline(target: Target) -> None:
    nap = "62.0002"
    script = f"trap '' TERM HUP INT; sleep {nap} & while :; do wait; done"
    async with target.connect() as ex:
        with pytest.raises(StepTimeout):
            await ex.run(Shell(action="t", script=script, timeout_s=0.5))
        assert not processes_with_argument(nap)


async def test_a_deadline_starts_with_the_program_not_with_the_login(target: Target) -> None:
    async with target.connect() as ex:
        assert (await ex.run(Exec(argv=("true",), timeout_s=0.9))).ok


async def test_the_sets_own_deadline_holds_for_a_step_that_names_none(target: Target) -> None:
    async with target.connect(max_timeout_s=0.5) as ex:
        with pytest.raises(StepTimeout):
            await ex.run(Exec(argv=("sleep", "62.0003")))
        with pytest.raises(LimitExceeded, match="over the limit"):
            await ex.run(Exec(argv=("true",), timeout_s=1))


async def test_output_over_the_limit_ends_the_program(target: Target) -> None:
    word = "opsexec-endless-output"
    async with target.connect(max_output_bytes=1_000_000) as ex:
        with pytest.raises(LimitExceeded, match="1000000 bytes"):
            await ex.run(Exec(argv=("yes", word)))
        assert not processes_with_argument(word)
        assert (await ex.run(Exec(argv=("head", "-c", "1000000", "/dev/zero")))).stdout_bytes == 1_000_000
        with pytest.raises(LimitExceeded):
            await ex.run(Shell(action="t", script="head -c 600000 /dev/zero; head -c 600000 /dev/zero >&2"))


async def test_a_slow_sink_stops_the_program_and_loses_nothing(target: Target, shared_dir: Path) -> None:
    """The program notes each block that it got rid of: with a sink that takes nothing the notes stop."""
    notes = shared_dir / "notes"
    notes.touch()
    notes.chmod(0o666)
    program = "python3", "-c", WRITER, str(notes)
    sink = GatedSink()
    async with target.connect() as ex:
        task = asyncio.create_task(ex.run(Exec(argv=program), sink))
        await eventually(lambda: notes.stat().st_size, within_s=10, what="the first block")
        written, since = 0, time.monotonic()
        while time.monotonic() - since < 0.5:
            await asyncio.sleep(0.02)
            now = int(notes.read_text())
            if now != written:
                written, since = now, time.monotonic()
        # What may be under way: the recorder's queue, one window, and the pipes and buffers between.
        assert written * 65536 < HIGH_WATER + 2 * OUTPUT_WINDOW + (2 << 20)
        assert not task.done()
        sink.gate.set()
        output = await asyncio.wait_for(task, 20)
    assert sink.size == output.stdout_bytes == 512 * 65536


async def test_one_slow_sink_does_not_hold_up_the_other_steps(target: Target) -> None:
    sink = GatedSink()
    async with target.connect() as ex:
        slow = asyncio.create_task(ex.run(Exec(argv=("head", "-c", "20000000", "/dev/zero")), sink))
        for _ in range(5):
            assert (await asyncio.wait_for(ex.run(Exec(argv=("echo", "hi"))), 10)).text == "hi\n"
        assert not slow.done()
        sink.gate.set()
        assert (await asyncio.wait_for(slow, 20)).stdout_bytes == sink.size == 20_000_000


async def test_a_deadline_holds_while_the_sink_is_stuck(target: Target) -> None:
    word = "opsexec-stuck-sink"
    async with target.connect() as ex:
        with pytest.raises(StepTimeout):
            await asyncio.wait_for(ex.run(Exec(argv=("yes", word), timeout_s=0.7), GatedSink()), 10)
        assert not processes_with_argument(word)
        with pytest.raises(StepTimeout):
            await asyncio.wait_for(ex.run(Exec(argv=("echo", "short"), timeout_s=0.7), GatedSink()), 10)


async def test_a_sink_that_raises_ends_the_run_with_its_error(target: Target) -> None:
    word = "opsexec-broken-sink"
    async with target.connect() as ex:
        for after in (0, 5_000_000):
            with pytest.raises(LookupError, match="the sink broke"):
                await asyncio.wait_for(ex.run(Exec(argv=("yes", word)), BrokenSink(after)), 10)
            assert not processes_with_argument(word)
        with pytest.raises(LookupError):
            await ex.run(Exec(argv=("echo", "short")), BrokenSink())
        assert (await ex.run(Exec(argv=("true",)))).ok


async def test_a_child_that_keeps_the_pipes_open_does_not_hold_the_step(target: Target) -> None:
    nap = "62.0004"
    async with target.connect() as ex:
        begun = time.monotonic()
        output = await ex.run(Shell(action="t", script=f"sleep {nap} & echo $!"))
        assert time.monotonic() - begun < 20  # the child holds them for a minute
        (pid,) = processes_with_argument(nap)
        assert output.text == f"{pid}\n"
        await ex.run(Exec(argv=("kill", str(pid))))


async def test_a_child_that_goes_on_talking_does_not_hold_the_step(target: Target) -> None:
    """It was left behind on purpose: it is not ended, and it gets no reader."""
    word = "opsexec-chatter"
    async with target.connect() as ex:
        begun = time.monotonic()
        script = f"sh -c 'trap \"\" PIPE; for i in $(seq 600); do echo x; sleep 0.05; done' {word} & echo $!"
        output = await asyncio.wait_for(ex.run(Shell(action="t", script=script)), 15)
        assert time.monotonic() - begun < 10
        pid = output.text.split()[0]
        assert processes_with_argument(word) == [int(pid)]
        await ex.run(Exec(argv=("kill", pid)))


async def test_a_childs_last_words_are_still_heard(target: Target) -> None:
    """A pipeline's tail may end a little after its head."""
    async with target.connect() as ex:
        output = await ex.run(Shell(action="t", script="(sleep 0.02; echo late) & echo early"))
    assert output.text == "early\nlate\n"


async def test_a_limit_names_the_host_it_held_on(target: Target) -> None:
    async with target.connect(max_output_bytes=10) as ex:
        with pytest.raises(OpsError) as caught:
            await ex.run(Exec(argv=("echo", "more than ten bytes")))
        assert caught.value.host == ex.host
