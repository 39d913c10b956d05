"""A full disk, a file that is no schedule, no audit, an agent that ends: nothing is begun twice, nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from agent.schedule.model import Schedule, Turn
from agent.schedule.store import ScheduleStore
from opsexec.errors import AuditUnavailable, HostUnsuitable, UsageError
from opsexec.steps import ScheduleAdd, ScheduleRemove
from opsexec.testing.executor import MemoryAudit
from tests.parts.kept_schedules import MINUTE, NOON, FakeClock, Kept, begun, count, counting
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


async def test_a_file_that_is_no_schedule_is_named_and_left_alone(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        await kept.do(counting(tmp_path, "other"))
    schedules = tmp_path / "state" / "schedules"
    (schedules / "other.json").write_bytes(b'{"asked": {"type": "schedule_add"')
    (schedules / "copy.json").write_bytes((schedules / "count.json").read_bytes())
    (schedules / "x.json.new").write_bytes(b"half")
    async with Kept(tmp_path / "state", clock) as kept:
        assert list(kept.keeper.entries) == ["count"]
        assert set(kept.keeper.unreadable) == {"other.json", "copy.json"}
        named = [x["step"]["file"] for x in kept.lines() if x["step"] and x["step"]["type"] == "schedule.unreadable"]
        assert sorted(named) == ["copy.json", "other.json"]
        with pytest.raises(UsageError, match="already"):
            await kept.do(counting(tmp_path, "other"))
        with pytest.raises(UsageError, match="can't be read"):
            await kept.do(ScheduleRemove("other"))
        await kept.at(NOON + MINUTE)
        await kept.quiet("count")
    assert count(tmp_path) == 1
    assert sorted(each.name for each in schedules.iterdir()) == ["copy.json", "count.json", "other.json"]


@pytest.mark.timeout(20)
async def test_what_is_no_file_at_all_is_named_and_left_alone(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
    schedules = tmp_path / "state" / "schedules"
    (schedules / "a.new").mkdir()
    (schedules / "directory.json").mkdir()
    os.mkfifo(schedules / "fifo.json")
    with (schedules / "huge.json").open("wb") as huge:
        huge.truncate(1 << 40)
    async with Kept(tmp_path / "state", clock) as kept:
        assert list(kept.keeper.entries) == ["count"]
        assert kept.keeper.unreadable == {
            "a.new": "can't be removed: Is a directory",
            "directory.json": "is not a regular file",
            "fifo.json": "is not a regular file",
            "huge.json": "is larger than 64 MiB",
        }


async def test_an_agent_that_has_nothing_to_change_begins_without_writing(tmp_path: Path, clock: FakeClock) -> None:
    """Its disk may be full; it would not begin at all, and be given up after a few tries."""
    file = tmp_path / "state" / "schedules" / "count.json"
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path, missed="skip"))
    before = file.stat()
    async with Kept(tmp_path / "state", clock) as kept:
        assert list(kept.keeper.entries) == ["count"]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


class FakeFullDisk(ScheduleStore):
    """A store whose disk may be full."""

    full = False

    def save(self, schedule: Schedule) -> None:
        """Save, where there is room."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().save(schedule)


async def test_what_cant_be_written_down_is_not_begun(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        kept.keeper.store = disk = FakeFullDisk(tmp_path / "state" / "schedules")
        await kept.do(counting(tmp_path))
        disk.full = True
        with pytest.raises(HostUnsuitable, match="No space"):
            await kept.do(counting(tmp_path, "more"))
        await kept.at(NOON + MINUTE)
        await eventually(lambda: kept.entry("count").troubled, within_s=10, what="the keeper meets the full disk")
        assert kept.turns() == []
        disk.full = False
        kept.look()
        await eventually(lambda: kept.turns() == ["due 12:01:00"], within_s=10, what="the turn begins")
        await kept.quiet("count")
    assert count(tmp_path) == 1


async def test_without_an_audit_nothing_is_begun_and_nothing_is_lost(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        real = kept.desk.audit
        failing: Any = MemoryAudit(AuditUnavailable("the disk is full"))
        kept.desk.audit = failing
        await kept.at(NOON + MINUTE)
        await begun(kept, "count")
        await asyncio.sleep(0)
        assert count(tmp_path) == 0
        kept.desk.audit = real
        await eventually(lambda: kept.turns() == ["due 12:01:00"], within_s=10, what="the turn begins")
        await kept.quiet("count")
    assert count(tmp_path) == 1


async def test_an_agent_begins_without_an_audit_and_records_what_it_found_once_there_is_one(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Kept from beginning it would be given up after a few tries, and stay away when there is room again."""
    schedules = tmp_path / "state" / "schedules"
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path, missed="skip"))
    store = ScheduleStore(schedules)
    ((schedule,), _) = store.load()
    schedule.turns.append(Turn(run="sched-left-1", due=NOON - 3600, cause="due"))
    store.save(schedule)
    (schedules / "other.json").write_bytes(b"no schedule")
    kept = Kept(tmp_path / "state", clock)
    real = kept.desk.audit
    failing: Any = MemoryAudit(AuditUnavailable("the disk is full"))
    kept.desk.audit = failing
    async with kept:
        assert set(kept.keeper.unreadable) == {"other.json"}
        await eventually(lambda: not kept.keeper._changed.is_set(), within_s=10, what="the keeper looks")
        assert kept.entry("count").schedule.turns
        kept.desk.audit = real
        await kept.quiet("count")
        await eventually(lambda: len(kept.left_out()) == 1, within_s=10, what="what was left out is recorded")
        steps = [line["step"] for line in kept.lines() if line["step"]]
        assert [step["file"] for step in steps if step["type"] == "schedule.unreadable"] == ["other.json"]
        assert kept.turns() == []
    assert count(tmp_path) == 0
    ((schedule,), _) = store.load()
    assert schedule.turns == []


async def test_a_turn_that_was_left_out_and_could_not_be_taken_off_the_disk_is_recorded_once(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path, missed="skip"))
        schedule = kept.entry("count").schedule
        schedule.turns.append(Turn(run="sched-left-1", due=NOON - 3600, cause="due"))
        kept.keeper.store.save(schedule)
    kept = Kept(tmp_path / "state", clock)
    kept.keeper.store = disk = FakeFullDisk(tmp_path / "state" / "schedules")
    disk.full = True
    async with kept:
        assert kept.entry("count").troubled
        disk.full = False
        kept.look()
        await eventually(lambda: not kept.entry("count").troubled, within_s=10, what="it is written down")
        assert len(kept.left_out()) == 1
    ((schedule,), _) = disk.load()
    assert schedule.turns == []


async def test_a_turn_that_ends_with_its_agent_is_recorded_and_not_begun_again(
    tmp_path: Path, clock: FakeClock
) -> None:
    book = f"name: b\nhosts: all\nsteps:\n  - exec: [sh, -c, 'echo b >> {tmp_path}/begun; sleep 300']\n"
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(ScheduleAdd("book", "* * * * *", runbook=book))
        await kept.at(NOON + MINUTE)
        await eventually(lambda: count(tmp_path, "begun") == 1, within_s=20, what="the turn begins")
        turn = kept.entry("book").schedule.turns[0]
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.quiet("book")
        (ended,) = kept.outcomes(turn)
        assert ended["error"] == "stopped"
    assert count(tmp_path, "begun") == 1
