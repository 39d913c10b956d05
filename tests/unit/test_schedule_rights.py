"""A schedule is done under the rights its owner has then, stopped by whoever may, and holds only what may be kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.run_store import RunRecord
from agent.schedule.model import Turn
from opsexec import CapabilitySet
from opsexec.errors import BadStep, CapabilityDenied, LimitExceeded, UsageError
from opsexec.secret import Secret
from opsexec.steps import Exec, ScheduleAdd, ScheduleRemove, ScheduleRun, ScheduleSwitch, WriteFile
from tests.parts.kept_schedules import ME, MINUTE, NOON, FakeClock, Kept, count, counting

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


async def test_a_turn_has_the_rights_its_owner_has_then(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        kept.grant("schedule.manage:*")
        await kept.at(NOON + MINUTE)
        await kept.quiet("count")
        denial = next(line for line in kept.lines() if line["decision"] == "deny")
        assert (denial["principal"], denial["layer"], denial["requires"][0][:8]) == (ME, "agent", "exec:sh ")
        assert count(tmp_path) == 0
        last = kept.entry("count").schedule.last
        assert last is not None
        assert last.state == "failed"
        kept.grant("exec:**")
        await kept.at(NOON + 2 * MINUTE)
        await kept.quiet("count")
    assert count(tmp_path) == 1


async def test_what_its_maker_had_narrowed_itself_to_binds_every_turn(tmp_path: Path, clock: FakeClock) -> None:
    book = f"name: b\nhosts: all\nsteps:\n  - write: {{ path: {tmp_path}/written, content: x }}\n"
    narrow = CapabilitySet.of("schedule.manage:*", "fs.write:/elsewhere/**")
    async with Kept(tmp_path / "state", clock) as kept:
        with pytest.raises(CapabilityDenied):
            await kept.do(counting(tmp_path), narrow)
        await kept.do(ScheduleAdd("book", "* * * * *", runbook=book), narrow)
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.at(NOON + MINUTE)
        await kept.quiet("book")
        assert any(line["decision"] == "deny" and "fs.write" in line["requires"][0] for line in kept.lines()[4:])
    assert not (tmp_path / "written").exists()


async def test_one_that_is_kept_under_other_rights_or_was_disabled_is_not_said_to_be_as_asked(
    tmp_path: Path, clock: FakeClock
) -> None:
    asked = ScheduleAdd("one", "* * * * *", steps=(Exec(["id"]),))
    narrow = CapabilitySet.of("schedule.manage:one", "exec:/usr/bin/id")
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(asked, narrow)
        assert (await kept.do(asked, narrow)).skipped == "the schedule one is so already"
        for other in (None, narrow & CapabilitySet.of("exec:**", "schedule.manage:*", max_timeout_s=5)):
            with pytest.raises(UsageError, match="already"):
                await kept.do(asked, other)
        await kept.do(ScheduleSwitch("one", False))
        assert (await kept.do(asked, narrow)).skipped == "the schedule one is so already, but disabled since"


async def test_anothers_schedule_can_be_stopped_but_not_used(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        for step in (ScheduleRun("count"), ScheduleSwitch("count", True)):
            with pytest.raises(CapabilityDenied, match="only its owner"):
                await kept.do(step, principal="unix:somebody")
        await kept.do(ScheduleSwitch("count", False), principal="unix:somebody")
        with pytest.raises(UsageError, match="already"):
            await kept.do(ScheduleAdd("count", "* * * * *", steps=(Exec(["id"]),)), principal="unix:somebody")
        await kept.do(ScheduleRemove("count"), principal="unix:somebody")


async def test_what_is_only_checked_changes_nothing_and_is_refused_as_it_would_be(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        assert (await kept.do(counting(tmp_path), check=True)).changed
        assert kept.keeper.entries == {}
        await kept.do(counting(tmp_path))
        for step in (ScheduleSwitch("count", False), ScheduleRun("count"), ScheduleRemove("count")):
            assert (await kept.do(step, check=True)).changed
            schedule = kept.entry("count").schedule
            assert (schedule.enabled, schedule.turns) == (True, [])
        assert not (await kept.do(ScheduleSwitch("count", True), check=True)).changed
        other = ScheduleAdd("count", "* * * * *", steps=(Exec(["id"]),))
        for owner in (ME, "unix:somebody"):
            with pytest.raises(UsageError, match="there is a schedule count already"):
                await kept.do(other, principal=owner, check=True)
        kept.entry("count").schedule.turns.append(Turn(run="sched-x-1", due=NOON, cause="asked"))
        for check in (True, False):
            with pytest.raises(UsageError, match="goes on: sched-x-1"):
                await kept.do(ScheduleRun("count"), check=check)
        kept.entry("count").schedule.turns.clear()
    assert count(tmp_path) == 0


async def test_a_run_that_someone_else_has_under_its_id_is_not_taken_for_its_own(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(counting(tmp_path))
        turn = kept.entry("count").schedule.turn_of(NOON + MINUTE, "due")
        record = RunRecord(
            run=turn.run + "-0", mark="m", principal="unix:somebody", listener="l", step={}, begun=0.0, request="r"
        )
        os.close(kept.detached.store.create(record))
        await kept.at(NOON + MINUTE)
        await kept.quiet("count")
        assert "another's" in kept.outcomes(turn)[0]["detail"]
    assert count(tmp_path) == 0


async def test_a_step_as_another_user_needs_that_user(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        step = ScheduleAdd("who", "* * * * *", steps=(Exec(["id"], run_as="daemon"),))
        with pytest.raises(CapabilityDenied, match="run_as:daemon"):
            await kept.do(step, CapabilitySet.of("schedule.manage:*", "exec:**"))


async def test_a_principal_has_so_many_schedules(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.schedule.manage.MAX_OF_ONE", 2)
    async with Kept(tmp_path / "state", clock) as kept:
        for name in ("a", "b"):
            await kept.do(counting(tmp_path, name))
        with pytest.raises(LimitExceeded):
            await kept.do(counting(tmp_path, "c"))


async def test_few_schedules_have_seconds_and_none_is_huge(tmp_path: Path, clock: FakeClock) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        for number in range(10):
            await kept.do(ScheduleAdd(f"often-{number}", "* * * * * *", steps=(Exec(["true"]),), enabled=False))
        with pytest.raises(LimitExceeded, match="with seconds"):
            await kept.do(ScheduleAdd("often-10", "* * * * * *", steps=(Exec(["true"]),), enabled=False))
        with pytest.raises(LimitExceeded, match="bytes"):
            await kept.do(ScheduleAdd("huge", "* * * * *", steps=(WriteFile("/x", content="x" * (600 << 10)),)))


def test_a_secret_is_not_kept() -> None:
    for step in (Exec(["id"], env={"A": Secret("x")}), Exec(["id"], stdin=Secret("x"))):
        with pytest.raises(BadStep, match="secret"):
            ScheduleAdd("a", "* * * * *", steps=(step,))


@pytest.mark.parametrize(
    "book",
    [
        "name: b\nhosts: web\nsteps: [{exec: [id]}]",
        "name: b\nhosts: 'ssh://elsewhere'\nsteps: [{exec: [id]}]",
        "name: b\nhosts: all\ntiers: [{hosts: all, approve: true}]\nsteps: [{exec: [id]}]",
        "name: b\nhosts: all\nvars: {key: {from_env: HOME}}\nsteps: [{exec: [id]}]",
        "name: b\nhosts: all\nvars: {key: {prompt: key}}\nsteps: [{exec: [id]}]",
        "name: b\nhosts: all\nsteps: [{push: {src: /etc/shadow, dest: /tmp/x}}]",
        "name: b\nhosts: all\nsteps: [{exec: [id]}]\nalways: [{pull: {src: /etc, dest: /tmp/x}}]",
        "name: b\nhosts: all\nsteps: nothing",
        "- : [",
    ],
)
async def test_a_runbook_that_wants_more_than_this_host_is_refused(tmp_path: Path, clock: FakeClock, book: str) -> None:
    async with Kept(tmp_path / "state", clock) as kept:
        with pytest.raises(UsageError):
            await kept.do(ScheduleAdd("book", "* * * * *", runbook=book))
        assert kept.keeper.entries == {}


async def test_steps_are_done_in_order_until_one_fails(tmp_path: Path, clock: FakeClock) -> None:
    steps = (
        WriteFile(f"{tmp_path}/1", content="x"),
        Exec(["sh", "-c", "exit 3"]),
        WriteFile(f"{tmp_path}/2", content="x"),
    )
    async with Kept(tmp_path / "state", clock) as kept:
        await kept.do(ScheduleAdd("three", "* * * * *", steps=steps))
        await kept.at(NOON + MINUTE)
        await kept.quiet("three")
        last = kept.entry("three").schedule.last
        assert last is not None
        assert last.detail == "step 2 of 3: exit status 3"
        assert kept.outcomes(last.run)[0]["steps_done"] == 1
    assert (tmp_path / "1").exists()
    assert not (tmp_path / "2").exists()
