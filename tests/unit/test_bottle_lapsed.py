"""What was approved for a bottle ends with it, and a resume says what that was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bottle.manifest import load_object
from bottle.operator.candidate import read_candidate
from bottle.operator.lapsed import lapsed
from bottle.operator.live import changed, live_policy
from bottle.operator.queue import Queue
from bottle.plan import BottlePlan, Intent, make_plan


def planned(*hosts: str) -> BottlePlan:
    routes = [{"host": host, "path_allowlist": ["/a"]} for host in hosts]
    bottle = {"supervise": True, "egress": {"routes": routes}}
    loaded = load_object({"bottles": {"dev": bottle}, "agents": {"a": {"bottle": "dev"}}}).load("a")
    return make_plan(loaded, Intent("a-00000000", arguments=("true",)))


def test_each_line_that_was_in_force_and_isn_t_any_more_is_told(tmp_path: Path) -> None:
    plan = planned("open.test")
    queue = Queue(tmp_path)
    queue.begin()
    asked = read_candidate("route", {"host": "new.test", "path_allowlist": ["/x", "/y"]})
    queue.write_policy(changed(live_policy(plan), asked))
    told = lapsed(tmp_path, plan)
    assert told == [f"was in force when it ended, and isn't now: egress new.test: path {path}" for path in ("/x", "/y")]
    # Written into the manifest, it stays, and nothing is left to tell.
    kept = dataclasses.replace(plan, egress=dataclasses.replace(plan.egress, routes=queue.policy().routes))
    assert lapsed(tmp_path, kept) == []


def test_a_bottle_that_nothing_was_approved_for_has_nothing_to_tell(tmp_path: Path) -> None:
    plan = planned("open.test")
    assert lapsed(tmp_path, plan) == []
    queue = Queue(tmp_path)
    queue.begin()
    queue.write_policy(live_policy(plan))
    assert lapsed(tmp_path, plan) == []


def test_a_policy_that_can_t_be_read_is_told_as_such(tmp_path: Path) -> None:
    Queue(tmp_path).begin()
    (tmp_path / "supervise" / "policy.json").write_text("{", "utf-8")
    (line,) = lapsed(tmp_path, planned("open.test"))
    assert "can't be told" in line
