"""Tiers go in order, in batches, past gates, and are cut by limits; over the shipped fake host."""

from __future__ import annotations

import io
from typing import Any

import pytest

from opsexec.errors import (
    UsageError,
)
from opsexec.runbook import (
    Approval,
    Journal,
)
from opsexec.testing import FakeHost
from tests.parts.runbook_fleet import Fleet

pytestmark = pytest.mark.anyio


TIERS = """
name: t
hosts: all
tiers:
  - { hosts: "&dev" }
  - { hosts: "&prod", serial: [1, "100%"], approve: true }
steps:
  - exec: [deploy, "${tier}"]
"""


def tiered(**answers: Any) -> Fleet:
    fleet = Fleet(**{name: {"deploy *": answers.get(name, 0)} for name in ("d1", "p1", "p2", "p3")})
    for name in fleet.hosts:
        fleet.details[name] = {"groups": ("dev" if name[0] == "d" else "prod",)}
    return fleet


async def test_tiers_go_in_order_and_in_batches():
    fleet = tiered()
    report = await fleet.run(TIERS, yes=True)
    assert fleet.opened[:2] == ["d1", "p1"]
    assert sorted(fleet.opened[2:]) == ["p2", "p3"]
    assert fleet.ran("p2") == [["deploy", "prod"]]
    assert report.exit_code == 0


async def test_a_failure_holds_back_the_next_batch_and_the_next_tier():
    fleet = tiered(p1=1)
    report = await fleet.run(TIERS, yes=True)
    assert fleet.opened == ["d1", "p1"]
    assert "1 of 3 hosts of tier prod failed" in str(report.stopped)
    assert report.totals["skipped"] == 2
    fleet = tiered(d1=1)
    await fleet.run(TIERS, yes=True)
    assert fleet.opened == ["d1"]


async def test_max_failures_lets_that_many_pass():
    fleet = tiered(p1=1)
    report = await fleet.run(TIERS.replace("approve: true", "max_failures: '34%'"))
    assert len(fleet.opened) == 4
    assert report.exit_code == 1


async def test_a_gate_asks_once_and_a_refusal_stops_with_3():
    asked: list[Approval] = []

    async def refuse(approval: Approval) -> bool:
        asked.append(approval)
        return False

    fleet = tiered()
    report = await fleet.run(TIERS, approver=refuse)
    assert [(a.tier, list(a.hosts)) for a in asked] == [("prod", ["p1", "p2", "p3"])]
    assert asked[0].totals["changed"] == 1
    assert fleet.opened == ["d1"]
    assert report.exit_code == 3


async def test_a_check_changes_nothing_so_no_gate_asks_and_every_tier_is_foreseen():
    async def refuse(approval: Approval) -> bool:
        raise AssertionError(f"asked for {approval.tier}")

    fleet = tiered()
    report = await fleet.run(TIERS, approver=refuse, check=True)
    assert (report.exit_code, report.stopped, report.totals["changed"]) == (0, None, 4)


async def test_without_a_terminal_a_gate_stops_with_3_and_resume_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    fleet = tiered()
    report = await fleet.run(TIERS, Journal(tmp_path))
    assert report.exit_code == 3
    assert f"--resume {report.run} --yes" in str(report.stopped)
    again = await fleet.run(TIERS, Journal(tmp_path), resume=report.run, yes=True)
    assert again.exit_code == 0
    assert fleet.opened.count("d1") == 1


async def test_limit_cuts_and_a_limit_that_selects_nothing_is_an_error():
    fleet = tiered()
    await fleet.run(TIERS, yes=True, limit="p2")
    assert fleet.opened == ["p2"]
    with pytest.raises(UsageError):
        await fleet.run(TIERS, yes=True, limit="p9")


async def test_a_tier_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(UsageError, match="stagign"):
        await tiered().run(TIERS.replace("&dev", "&stagign"))


async def test_a_selected_host_that_no_tier_takes_is_mentioned():
    fleet = tiered()
    fleet.details["d1"] = {"groups": ("dev",)}
    fleet.hosts["x1"] = FakeHost("x1")
    report = await fleet.run(TIERS, yes=True)
    assert report.notices == ["no tier takes x1: nothing is done there"]
    assert "x1" not in report.hosts
