"""A run that broke off goes on from where it was, and as it was; over the shipped fake host."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from opsexec.errors import (
    UsageError,
)
from opsexec.inventory import Inventory, InventoryHost
from opsexec.runbook import (
    Engine,
    Journal,
    RunOptions,
    SilentProgress,
    execute,
)
from opsexec.runbook.progress import StepFinished
from opsexec.testing import Answer, FakeHost
from tests.parts.runbook_fleet import Fleet, load, statuses

pytestmark = pytest.mark.anyio


BOOK = """
- exec: [one]
- exec: [two]
  register: out
- exec: [three, "${out.stdout}"]
- exec: [four]
"""


async def test_resume_goes_on_after_the_last_good_step(tmp_path):
    fleet = Fleet(
        a={"one": 0, "two": "kept\n", "three *": [1, 0], "four": 0},
        b={"one": 0, "two": 0, "three *": 0, "four": 0},
    )
    report = await fleet.run(BOOK, Journal(tmp_path))
    assert report.exit_code == 1
    again = await fleet.run(BOOK, Journal(tmp_path), resume=report.run)
    assert again.exit_code == 0
    assert [words[0] for words in fleet.ran("a")] == ["one", "two", "three", "three", "four"]
    assert fleet.ran("a")[3] == ["three", "kept"]
    assert len(fleet.ran("b")) == 4
    assert statuses(again) == ["changed"] * 4
    assert again.run == report.run


async def test_resume_refuses_another_runbook_and_an_unknown_run(tmp_path):
    fleet = Fleet(a={"one": 1, "two": 0})
    report = await fleet.run("- exec: [one]", Journal(tmp_path))
    with pytest.raises(UsageError, match="not the one"):
        await fleet.run("- exec: [two]", Journal(tmp_path), resume=report.run)
    with pytest.raises(UsageError, match="there is no run"):
        await fleet.run("- exec: [one]", Journal(tmp_path), resume="20200101-000000-abcdef")
    with pytest.raises(UsageError, match="not a run's id"):
        await fleet.run("- exec: [one]", Journal(tmp_path), resume="../../etc/passwd")


async def test_a_check_is_never_resumed_as_if_it_had_done_something(tmp_path):
    fleet = Fleet(a={"one": 0})
    report = await fleet.run("- exec: [one]", Journal(tmp_path), check=True)
    with pytest.raises(UsageError, match="was a check"):
        await fleet.run("- exec: [one]", Journal(tmp_path), resume=report.run)


async def test_a_host_that_moved_is_not_resumed(tmp_path):
    fleet = Fleet(a={"one": 1})
    report = await fleet.run("- exec: [one]", Journal(tmp_path))
    moved = Inventory([InventoryHost(name="a", url="ssh://elsewhere")])
    with pytest.raises(UsageError, match="elsewhere"):
        await execute(
            load("- exec: [one]"),
            moved,
            fleet.connect,
            RunOptions(resume=report.run),
            None,
            Journal(tmp_path),
        )


async def test_going_on_with_other_hosts_than_it_began_with_is_told(tmp_path):
    fleet = Fleet(a={"one": [1, 0]}, b={"one": 1}, c={"one": 0})
    report = await fleet.run("- exec: [one]", Journal(tmp_path))
    fleet.hosts = {"a": fleet.hosts["a"], "d": FakeHost("d", answers={"one": 0})}
    again = await fleet.run("- exec: [one]", Journal(tmp_path), resume=report.run)
    assert again.notices == [
        "b was in this run and is no longer: what was left to do there is not done",
        "d was not in this run when it began: every step is for it",
    ]


async def test_resume_keeps_the_variables_it_began_with(tmp_path):
    fleet = Fleet(a={"one *": [1, 0]})
    book = "- exec: [one, '${v}']"
    report = await fleet.run(book, Journal(tmp_path), vars={"v": "1.2"})
    await fleet.run(book, Journal(tmp_path), resume=report.run)
    assert fleet.ran("a") == [["one", "1.2"]] * 2


async def test_cancelling_ends_the_step_runs_always_and_leaves_a_journal_to_resume(tmp_path):
    started = asyncio.Event()
    fleet = Fleet(a={"one": 0, "slow": [Answer(delay_s=60), 0], "clean": 0})
    book = load("name: t\nhosts: all\nsteps: [{exec: [one]}, {exec: [slow]}]\nalways: [{exec: [clean]}]\n")

    class Watch(SilentProgress):
        def on(self, event):
            if isinstance(event, StepFinished) and event.report.name == "exec one":
                started.set()

    engine = Engine(book, fleet.inventory, fleet.connect, RunOptions(), Watch(), Journal(tmp_path))
    task = asyncio.create_task(engine.run())
    await asyncio.wait_for(started.wait(), 20)
    await anyio.wait_all_tasks_blocked()
    assert len(fleet.ran("a")) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [words[0] for words in fleet.ran("a")] == ["one", "slow", "clean"]
    report = engine.report
    assert (report.exit_code, report.interrupted) == (130, True)
    assert [(s.name, s.error) for s in report.hosts["a"].steps][1] == ("exec slow", "interrupted")
    assert fleet.open == 0
    again = await fleet.run(book, Journal(tmp_path), resume=report.run)
    assert [words[0] for words in fleet.ran("a")][3:] == ["slow", "clean"]
    assert again.hosts["a"].steps[1].note == "was started before, but not finished: run again"
    assert again.exit_code == 0


async def test_an_interrupted_check_is_not_said_to_go_on(tmp_path):
    fleet = Fleet(a={})
    book = load("name: t\nhosts: all\nsteps: [{exec: [one]}, {read: /x}]\n")

    class Interrupt(SilentProgress):
        def on(self, event):
            if isinstance(event, StepFinished) and event.report.name == "exec one":
                task.cancel()

    engine = Engine(book, fleet.inventory, fleet.connect, RunOptions(check=True), Interrupt(), Journal(tmp_path))
    task = asyncio.create_task(engine.run())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (engine.report.exit_code, engine.report.stopped) == (130, "interrupted")


async def test_cleaning_up_after_a_cancel_is_bounded(monkeypatch):
    monkeypatch.setattr("opsexec.runbook.host_run.CLEANUP_TIMEOUT_S", 0.05)
    fleet = Fleet(a={"slow": Answer(delay_s=60)})
    book = load("name: t\nhosts: all\nsteps: [{exec: [slow]}]\nalways: [{exec: [slow]}]\n")
    with anyio.move_on_after(0.05) as scope:
        await fleet.run(book)
    assert scope.cancelled_caught
    assert len(fleet.ran("a")) == 2


async def test_two_processes_never_resume_one_run(tmp_path):
    fleet = Fleet(a={"one": 1})
    report = await fleet.run("- exec: [one]", Journal(tmp_path))
    held = Journal(tmp_path)
    held.reopen(report.run)
    with pytest.raises(UsageError, match="another process"):
        await fleet.run("- exec: [one]", Journal(tmp_path), resume=report.run)
    held.close()
