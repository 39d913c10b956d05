"""The queue on the operator's disk, and the attendant that carries decisions out: once, audited, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from bottle.errors import PolicyInDoubt
from bottle.operator.attendant import MAX_EVER, MAX_PENDING
from bottle.operator.live import LivePolicy, changed
from bottle.operator.queue import Decision, Queue, QueueUnreadable, new_nonce
from opsexec.errors import OpsError
from tests.parts.attendants import POLICY, ask, attended, decide, route


def test_only_its_owner_enters_the_queue(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    ask(attendant, "new.test")
    for path in (tmp_path / "supervise").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o700), path
    assert stat.S_IMODE((tmp_path / "supervise").stat().st_mode) == 0o700


def test_SV3_so_many_wait_and_so_many_are_ever_asked(tmp_path: Path) -> None:
    attendant, told = attended(tmp_path)
    for n in range(500):
        ask(attendant, f"n{n}.test")
    assert len(list((tmp_path / "supervise" / "proposals").iterdir())) == MAX_PENDING
    assert told[-1]["status"] == "refused"
    for _ in range(MAX_EVER):
        for proposal in Queue(tmp_path).proposals():
            if proposal.status == "pending":
                decide(attendant, proposal, approve=False)
        for n in range(MAX_PENDING):
            ask(attendant, f"m{len(told)}x{n}.test")
    assert len(Queue(tmp_path).proposals()) == MAX_EVER
    assert len(attendant.audit.records) < 4 * MAX_EVER  # type: ignore[attr-defined] # it is the list above


def test_a_decision_is_claimed_once_or_withdrawn_once(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    queue = Queue(tmp_path)
    decision = Decision(new_nonce(), proposal.number, True, proposal.candidate.digest, POLICY.digest)
    queue.decide(decision)
    assert queue.withdraw(decision)
    assert not queue.withdraw(decision)
    assert list(queue.claim()) == []
    queue.decide(decision)
    (found,) = queue.claim()
    assert (found.number, found.uid) == (proposal.number, os.geteuid())
    assert not queue.withdraw(decision)
    assert list(queue.claim()) == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"number": "1", "approve": true}', "{" * 9000, "[" * 200_000]
)
def test_what_is_no_decision_is_no_word_at_all(tmp_path: Path, text: str) -> None:
    attendant, _ = attended(tmp_path)
    ask(attendant, "new.test")
    (tmp_path / "supervise" / "decisions" / f"{new_nonce()}.json").write_text(text)
    (tmp_path / "supervise" / "decisions" / "x.json").write_text(text)
    assert list(Queue(tmp_path).claim()) == []


def test_a_link_in_the_place_of_a_decision_is_no_word_either(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    real = tmp_path / "elsewhere.json"
    decision = {"number": proposal.number, "approve": True, "candidate": proposal.candidate.digest}
    real.write_text(json.dumps({**decision, "policy": POLICY.digest, "reason": ""}))
    (tmp_path / "supervise" / "decisions" / f"{new_nonce()}.json").symlink_to(real)
    assert list(Queue(tmp_path).claim()) == []


def test_an_approval_is_audited_with_its_diff_before_it_is_carried_out(tmp_path: Path) -> None:
    attendant, told = attended(tmp_path)
    proposal = ask(attendant, "new.test", "/x")
    seen: list[Any] = []

    async def apply(policy: LivePolicy) -> None:
        seen.extend(attendant.audit.records)  # type: ignore[attr-defined] # it is the list above
        assert policy == changed(POLICY, route("new.test", "/x"))

    assert decide(attendant, proposal, approve=True, apply=apply) == (True, "in force: + egress new.test: path /x")
    assert seen[-1]["step"]["diff"] == ["+ egress new.test: path /x"]
    assert seen[-1]["decision"] == "allow"
    assert told[-1] == {"decided": 1, "status": "approved", "reason": ""}
    assert Queue(tmp_path).policy() == attendant.policy


def test_SV15_what_cannot_be_carried_out_is_denied_and_the_agent_is_told(tmp_path: Path) -> None:
    attendant, told = attended(tmp_path)
    proposal = ask(attendant, "new.test")

    async def lost(_: LivePolicy) -> None:
        raise OpsError("the link is gone")

    outcome = decide(attendant, proposal, approve=True, apply=lost)
    assert outcome is not None
    assert outcome[0] is False
    assert attendant.policy == POLICY
    assert told[-1]["status"] == "failed"
    assert attendant.audit.records[-1]["decision"] == "deny"  # type: ignore[attr-defined] # it is the list above
    assert decide(attendant, proposal, approve=True) == (False, "it is failed already")


def test_a_daemon_that_says_more_refusals_than_anybody_reads_fills_no_audit(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    for count in range(1, 5000):
        attendant.take({"event": "refused", "reason": "a", "count": count})
        attendant.take({"event": "refused", "reason": f"r{count}", "count": 1})
        attendant.take({"event": "refused", "reason": "a", "count": 1})
    assert len(attendant.audit.records) < 120  # type: ignore[attr-defined] # it is the list above


def test_a_queue_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    shutil.rmtree(tmp_path / "supervise" / "proposals")
    with pytest.raises(QueueUnreadable, match="can't be written"):
        ask(attendant, "new.test")


def test_a_policy_in_doubt_ends_the_bottle(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")

    async def half(_: LivePolicy) -> None:
        raise PolicyInDoubt("half in force")

    with pytest.raises(PolicyInDoubt):
        decide(attendant, proposal, approve=True, apply=half)
    assert attendant.policy == POLICY


def test_no_audit_no_change(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    applied: list[LivePolicy] = []

    class Full:
        def append(self, record: Any) -> object:
            raise OSError("disk full")

    attendant.audit = Full()

    async def apply(policy: LivePolicy) -> None:
        applied.append(policy)

    with pytest.raises(OSError, match="disk full"):
        decide(attendant, proposal, approve=True, apply=apply)
    assert applied == []
    assert attendant.policy == POLICY


@pytest.mark.parametrize("other", [{"candidate": "0" * 64}, {"policy": "0" * 64}, {"number": 7}])
def test_SV5_a_decision_on_another_change_or_policy_is_void(tmp_path: Path, other: dict[str, Any]) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    outcome = decide(attendant, proposal, approve=True, **other)
    assert outcome is not None
    assert outcome[0] is False
    assert attendant.policy == POLICY
    assert [each.status for each in Queue(tmp_path).proposals()] == ["pending"]
    assert attendant.audit.records[-1]["decision"] == "deny"  # type: ignore[attr-defined] # it is the list above


def test_an_edited_approval_is_of_the_edit(tmp_path: Path) -> None:
    attendant, told = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    body = {"host": "new.test", "path_allowlist": ["/only"]}
    outcome = decide(attendant, proposal, approve=True, body=body)
    assert outcome == (True, "in force: + egress new.test: path /only")
    assert told[-1]["reason"] == "as the operator edited it"
    assert attendant.audit.records[-1]["step"]["edited"] == body  # type: ignore[attr-defined] # it is the list above


def test_what_waits_is_void_when_the_bottle_ends(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    attendant.over()
    assert [each.status for each in Queue(tmp_path).proposals()] == ["void"]
    assert decide(attendant, proposal, approve=True) == (False, "it is void already")


@pytest.mark.parametrize("text", ["", "[]", '{"number": 1}', "\x00"])
def test_a_queue_that_is_no_queue_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    attendant, _ = attended(tmp_path)
    ask(attendant, "new.test")
    (tmp_path / "supervise" / "proposals" / "1.json").write_text(text)
    with pytest.raises(QueueUnreadable):
        Queue(tmp_path).proposals()


def test_a_taken_over_daemon_can_ask_for_nothing_that_is_granted_by_asking(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    for event in (
        {"event": "decided", "decided": 1, "status": "approved"},
        {"event": "ask", "ask": "1", "kind": "route", "candidate": {"host": "a.test"}, "why": "w"},
        {"event": "ask", "ask": 1, "kind": "route", "candidate": "a.test", "why": "w"},
        {"event": "ask", "ask": 1, "kind": "route", "candidate": {"host": "a.test"}, "why": "w\nx"},
        {"event": "ask", "ask": 1, "kind": "route", "candidate": {"host": "a.test"}, "why": "w" * 5000},
        {"event": "refused", "reason": "x" * 10000, "count": 1},
        {"event": 7},
    ):
        attendant.take(event)
    assert Queue(tmp_path).proposals() == []
    assert attendant.policy == POLICY
