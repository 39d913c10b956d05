"""A rebuild that a person approved: what waits behind it, and what stays in force when it fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bottle.launch import Rebuild
from bottle.manifest import load_object
from bottle.operator.attendant import Attendant
from bottle.operator.attending import rebuilding
from bottle.operator.candidate import read_candidate
from bottle.operator.live import LivePolicy, changed, live_policy
from bottle.operator.queue import Decision, Queue
from bottle.plan import BottlePlan, Intent, make_plan
from opsexec.errors import OpsError
from tests.parts.attendants import attended, decide, route


def asked(attendant: Attendant, kind: str, body: dict[str, Any]) -> Any:
    """Propose a change; what is kept of it."""
    attendant.take({"event": "ask", "ask": 1, "kind": kind, "candidate": body, "why": "w"})
    return attendant.queue.proposals()[-1]


ROUTE = {"host": "new.test", "path_allowlist": ["/a"]}
DIRECTORY = {"read_only": "/opt/go"}


def test_decisions_behind_an_approved_rebuild_wait_and_are_void_when_they_are_looked_at_again(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    directory, new = asked(attendant, "capability", DIRECTORY), asked(attendant, "route", ROUTE)
    queue, applied = Queue(tmp_path), list[LivePolicy]()
    first, second = (
        Decision(nonce * 32, proposal.number, True, proposal.candidate.digest, attendant.policy.digest)
        for nonce, proposal in (("a", directory), ("b", new))
    )
    for decision in (first, second):
        queue.decide(decision)

    async def apply(policy: LivePolicy) -> None:
        applied.append(policy)

    asyncio.run(attendant.carry_out_what_is_there(apply))
    assert attendant.rebuild is not None
    assert queue.outcome(first) is not None
    assert queue.outcome(second) is None
    attendant.rebuilding()
    asyncio.run(attendant.carry_out_what_is_there(apply))
    outcome = queue.outcome(second)
    assert outcome is not None
    assert "policy has changed" in outcome[1]
    assert applied == []


@dataclass(frozen=True)
class Whole:
    """As much of an attended bottle as the loop looks at."""

    plan: BottlePlan
    resume: bool = False
    told: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Keep what the person is told."""
        self.told.append(line)


def test_a_rebuild_that_fails_keeps_the_routes_that_were_approved_since_the_start(tmp_path: Path) -> None:
    bottle = {"supervise": True, "egress": {"routes": [{"host": "api.test", "path_allowlist": ["/v1"]}]}}
    loaded = load_object({"bottles": {"dev": bottle}, "agents": {"worker": {"bottle": "dev"}}}).load("worker")
    plan = make_plan(loaded, Intent("worker-00000001", arguments=("true",)))
    attendant, _ = attended(tmp_path, live_policy(plan))
    ran: list[BottlePlan] = []

    async def once(whole: Whole) -> str:
        ran.append(whole.plan)
        if len(ran) == 1:
            approve(attendant, asked(attendant, "route", ROUTE))
            approve(attendant, asked(attendant, "capability", DIRECTORY))
            raise Rebuild
        if len(ran) == 2:
            raise OpsError("there is no /opt/go")
        return "ended"

    def approve(attendant: Attendant, proposal: Any) -> None:
        done = in_a_thread(lambda: decide(attendant, proposal, approve=True))
        assert done is not None
        assert done[0], done

    ended: Any = asyncio.run(rebuilding(cast(Any, Whole(plan)), attendant, cast(Any, once)))
    assert ended == "ended"
    wanted = changed(live_policy(plan), route("new.test", "/a"))
    assert [live_policy(each) == wanted for each in ran] == [False, False, True]
    assert attendant.policy == wanted
    assert read_candidate("capability", DIRECTORY) == attendant.queue.proposals()[-1].candidate


def in_a_thread(work: Any) -> Any:
    """Do what runs a loop of its own, from inside of another."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(10)
