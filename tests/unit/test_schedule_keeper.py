"""What becomes of due times: once each whatever the clock does, by the policies, under the owner's grants of then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.desk import Desk
from agent.schedule import runbooks
from agent.schedule.keeper import LATE_S, Keeper
from agent.schedule.model import Schedule, jitter
from agent.schedule.runbooks import read_runbook
from opsexec.errors import UsageError
from opsexec.runbook import Runbook
from opsexec.steps import Exec, ScheduleAdd, ScheduleRemove, ScheduleRun, ScheduleSwitch
from opsexec.testing.executor import MemoryAudit
from tests.parts.kept_schedules import ME, MINUTE, NOON, FakeClock, Kept, begun, count, counting
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


# -- due, and the clock ---------------------------------------------------------------------------------------------


async def test_a_due_time_has_one_turn_and_its_cause_is_recorded(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        await kept.at(NOON + 59.9)
        await kept.quiet("count")
        assert kept.turns() == []
        await kept.at(NOON + 60.1)
        await kept.quiet("count")
        await kept.at(NOON + 61)
        await kept.quiet("count")
        assert kept.turns() == ["due 12:01:00"]
        lines = kept.lines()
    (turn,) = [line for line in lines if line["step"] and line["step"]["type"] == "schedule.turn"]
    steps = [line for line in lines if line["run"] == turn["run"] + "-0"]
    assert turn["principal"] == ME
    assert [line["listener"] for line in steps] == ["schedule:count@" + turn["step"]["due"]] * 2
    assert [line["outcome"]["exit_code"] for line in lines if line["run"] == turn["run"] and line["outcome"]] == [0]
    assert count(tmp_path) == 1


async def test_a_clock_put_back_brings_no_due_time_again(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        for now in (60, 120, 90, 30, 61, 121, 0, 119, 181):
            await kept.at(NOON + now)
            await kept.quiet("count")
        assert kept.turns() == ["due 12:01:00", "due 12:02:00", "due 12:03:00"]
    assert count(tmp_path) == 3


async def test_a_clock_that_was_in_the_far_future_doesnt_silence_a_schedule(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        await kept.at(NOON + 400 * 86400 + 1)
        await kept.quiet("count")
        await kept.at(NOON + 60)
        await kept.quiet("count")
        assert kept.turns() == ["due 12:00:00", "due 12:01:00"]


async def test_a_clock_that_was_in_the_far_past_brings_nothing_up(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path, missed="all"))
        await kept.at(NOON + 60)
        await kept.quiet("count")
        await kept.at(60)
        await kept.quiet("count")
        await kept.at(NOON + 61)
        await kept.quiet("count")
        assert kept.turns() == ["due 12:01:00"]


async def test_what_was_decided_survives_the_agent(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        await kept.at(NOON + 60)
        await kept.quiet("count")
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.at(NOON + 62)
        await kept.quiet("count")
        assert kept.turns() == ["due 12:01:00"]
        last = kept.entry("count").schedule.last
        assert last is not None
        assert last.state == "ok"
        await kept.at(NOON + 120)
        await kept.quiet("count")
    assert count(tmp_path) == 2


async def test_a_long_look_back_counts_only_the_last(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path, missed="all", missed_limit=3))
        await kept.at(NOON + 10 * 365 * 86400 + 40)
        await kept.quiet("count")
        assert kept.turns() == ["missed 11:58:00", "missed 11:59:00", "missed 12:00:00"]
        (why,) = kept.left_out()
    assert "at least" in why
    assert count(tmp_path) == 3


# -- missed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "turns", "left_out"),
    [
        ("skip", ["due 12:05:00"], ["4 missed, the last at 2026-09-21T12:04:00Z; policy skip"]),
        ("once", ["missed 12:04:00"], ["3 missed"]),
        ("all", ["missed 12:03:00", "missed 12:04:00"], ["2 missed"]),
    ],
)
async def test_missed_times_are_treated_by_the_policy(
    tmp_path: Path, clock: FakeClock, missed: Any, turns: Sequence[str], left_out: Sequence[str]
) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path, missed=missed, missed_limit=2))
    clock.time = NOON + 5 * MINUTE + 3
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.quiet("count")
        assert kept.turns()[: len(turns)] == list(turns)
        assert len(kept.left_out()) >= len(left_out)
        assert kept.left_out()[0].startswith(left_out[0][:8])
    assert count(tmp_path) == len(kept.turns())


async def test_a_time_is_late_for_a_while_before_it_is_missed(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        await kept.at(NOON + MINUTE + LATE_S - 1)
        await kept.quiet("count")
        await kept.at(NOON + 2 * MINUTE + LATE_S + 1)
        await kept.quiet("count")
        assert kept.turns() == ["due 12:01:00"]
        assert kept.left_out() == ["1 missed, the last at " + kept.lines()[1]["ts"][:0] + _iso(2) + "; policy skip"]


def _iso(minutes: int) -> str:
    from agent.schedule.model import when

    return when(NOON + minutes * MINUTE)


# -- overlap --------------------------------------------------------------------------------------------------------


def waiting(tmp_path: Path, **how: Any) -> ScheduleAdd:
    """A schedule whose turns go on until a file appears."""
    script = (
        f"echo b >> {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo e >> {tmp_path}/ended"
    )
    return ScheduleAdd("wait", "* * * * *", steps=(Exec(["sh", "-c", script]),), **how)


async def three_times(kept: Kept, tmp_path: Path) -> None:
    for minute in (1, 2, 3):
        await kept.at(NOON + minute * MINUTE)
        await eventually(lambda: not kept.keeper._changed.is_set(), within_s=10, what="the keeper looks")
        if minute == 1:
            await eventually((tmp_path / "begun").exists, within_s=10, what="the first turn begins")
    (tmp_path / "go").touch()
    await kept.quiet("wait")


async def test_while_a_turn_goes_on_the_next_is_skipped_and_that_is_recorded(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(waiting(tmp_path))
        await three_times(kept, tmp_path)
        assert kept.turns() == ["due 12:01:00"]
        assert ["12:02" in why or "12:03" in why for why in kept.left_out()] == [True, True]


async def test_one_turn_may_wait_for_the_last(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(waiting(tmp_path, overlap="queue"))
        await three_times(kept, tmp_path)
        assert kept.turns() == ["due 12:01:00", "due 12:02:00"]
        (why,) = kept.left_out()
        assert "12:03" in why
    assert count(tmp_path, "ended") == 2


async def test_the_last_turn_is_ended_for_the_next(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(waiting(tmp_path, overlap="kill"))
        await kept.at(NOON + MINUTE)
        await eventually(lambda: count(tmp_path, "begun") == 1, within_s=10, what="the first turn begins")
        first = kept.entry("wait").schedule.turns[0]
        await kept.at(NOON + 2 * MINUTE)
        await eventually(lambda: count(tmp_path, "begun") == 2, within_s=10, what="the second turn begins")
        (tmp_path / "go").touch()
        await kept.quiet("wait")
        assert kept.turns() == ["due 12:01:00", "due 12:02:00"]
        (ended,) = kept.outcomes(first)
        assert "next turn was due" in ended["detail"]
    assert count(tmp_path, "ended") == 1


async def test_a_runbook_is_ended_for_the_next_turn_too(tmp_path: Path, clock: FakeClock) -> None:
    book = f"name: b\nhosts: all\nsteps:\n  - exec: [sh, -c, 'echo b >> {tmp_path}/begun; sleep 300']\n"
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(ScheduleAdd("wait", "* * * * *", runbook=book, overlap="kill"))
        await kept.at(NOON + MINUTE)
        await eventually(lambda: count(tmp_path, "begun") == 1, within_s=20, what="the first turn begins")
        first = kept.entry("wait").schedule.turns[0]
        await kept.at(NOON + 2 * MINUTE)
        await eventually(lambda: count(tmp_path, "begun") == 2, within_s=20, what="the second turn begins")
        (ended,) = kept.outcomes(first)
        assert "next turn was due" in ended["detail"]


async def test_the_agent_goes_on_while_a_runbook_is_read(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading one waits here for what the agent does meanwhile: in its loop it would wait in vain."""
    gone_on = threading.Event()
    met: list[bool] = []

    def slow(text: str, host: str) -> Runbook:
        met.append(gone_on.wait(20))
        gone_on.clear()
        return read_runbook(text, host)

    async def beat() -> None:
        while True:
            await asyncio.sleep(0.01)
            gone_on.set()

    monkeypatch.setattr(runbooks, "read_runbook", slow)
    book = "name: b\nhosts: all\nsteps:\n  - exec: [/usr/bin/true]\n"
    async with Kept(tmp_path / "state", clock) as kept:
        beating = asyncio.create_task(beat())
        await kept.do(ScheduleAdd("big", "* * * * *", runbook=book))
        await kept.at(NOON + MINUTE)
        await kept.quiet("big")
        beating.cancel()
        last = kept.entry("big").schedule.last
        assert last is not None
        assert last.state == "ok"
    assert met == [True, True]  # once when it is added, once when its turn comes


# -- jitter, switches -----------------------------------------------------------------------------------------------


def test_jitter_is_always_the_same_and_spreads_hosts_and_schedules() -> None:
    drawn = {jitter(host, name, 600) for host in "abcdefgh" for name in ("backup", "tidy")}
    assert drawn == {jitter(host, name, 600) for host in "abcdefgh" for name in ("backup", "tidy")}
    assert len(drawn) == 16
    assert all(0 <= each < 600 for each in drawn)
    assert max(drawn) - min(drawn) > 200


async def test_a_turn_begins_later_by_its_jitter(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(ScheduleAdd("late", "0 * * * *", steps=(Exec(["true"]),), jitter_s=1800))
        offset = kept.entry("late").offset
        assert offset == jitter("here", "late", 1800)
        await kept.at(NOON + 3600 + offset - 1)
        await kept.quiet("late")
        assert kept.turns() == []
        await kept.at(NOON + 3600 + offset + 1)
        await kept.quiet("late")
        assert kept.turns() == ["due 13:00:00"]


async def test_a_disabled_schedule_does_nothing_and_catches_nothing_up(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path, missed="all"))
        await kept.do(ScheduleSwitch("count", False))
        await kept.at(NOON + 5 * MINUTE)
        await kept.do(ScheduleSwitch("count", True))
        await kept.quiet("count")
        assert kept.turns() == []
        await kept.at(NOON + 6 * MINUTE)
        await kept.quiet("count")
        assert kept.turns() == ["due 12:06:00"]


async def test_a_turn_can_be_asked_for_once_at_a_time(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(waiting(tmp_path))
        done = await kept.do(ScheduleRun("wait"))
        await begun(kept, "wait")
        with pytest.raises(UsageError, match="goes on"):
            await kept.do(ScheduleRun("wait"))
        (tmp_path / "go").touch()
        await kept.quiet("wait")
        assert kept.outcomes(done.value["run"])[0]["exit_code"] == 0
        assert f"asked for by {ME}" in next(x["reason"] for x in kept.lines() if x["run"] == done.value["run"])


async def test_a_removed_schedule_is_forgotten_and_its_turn_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(waiting(tmp_path))
        done = await kept.do(ScheduleRun("wait"))
        await eventually((tmp_path / "begun").exists, within_s=10, what="the turn begins")
        await kept.do(ScheduleRemove("wait"))
        assert (await kept.do(ScheduleRemove("wait"))).skipped
        (tmp_path / "go").touch()
        await eventually(lambda: kept.outcomes(done.value["run"]), within_s=10, what="the turn ends")
    assert list((tmp_path / "state" / "schedules").iterdir()) == []


# -- any clock at all -----------------------------------------------------------------------------------------------


class FakeDesk:
    """As much of a desk as a keeper needs to decide."""

    def __init__(self) -> None:
        self.name = "here"
        self.audit = MemoryAudit()


@settings(max_examples=60)
@given(
    st.lists(st.integers(-4000, 9000), min_size=1, max_size=25),
    st.sampled_from(["skip", "once", "all"]),
    st.sampled_from(["skip", "queue", "kill"]),
    st.booleans(),
)
def test_no_due_time_has_two_turns_however_the_clock_jumps(
    tmp_path_factory: pytest.TempPathFactory, jumps: list[int], missed: Any, overlap: Any, restarts: bool
) -> None:
    directory = tmp_path_factory.mktemp("schedules")
    clock = FakeClock(NOON)
    desk: Any = FakeDesk()
    keeper = _keeper(desk, directory, clock)
    asked = ScheduleAdd("a", "*/5 * * * *", steps=(Exec(["id"]),), missed=missed, overlap=overlap, missed_limit=4)
    schedule = Schedule(
        asked=asked, uid="0" * 16, owner=ME, listener="t", created=NOON, enabled=True, attenuation=None, cursor=NOON
    )
    keeper.add(schedule)
    had: list[int] = []
    for jump in jumps:
        clock.time += jump
        if restarts:
            keeper = _keeper(desk, directory, clock)
            (found,), _ = keeper.store.load()
            from agent.schedule.keeper import Entry

            keeper.entries["a"] = Entry(found, "here")
        entry = keeper.entries["a"]
        for _ in range(3):
            keeper._consider(entry)
        assert all(turn.due <= clock.time for turn in entry.schedule.turns)
        had += [turn.due for turn in entry.schedule.turns]
        entry.schedule.turns.clear()
        keeper.store.save(entry.schedule)
    assert len(had) == len(set(had))


def _keeper(desk: Desk, directory: Path, clock: FakeClock) -> Keeper:
    return Keeper(desk, directory, clock)
