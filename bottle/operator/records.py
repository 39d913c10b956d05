"""The audit records of supervise: what was proposed, what was decided and how the policy differs by it."""

from __future__ import annotations

from typing import Any

from bottle.operator.live import LivePolicy
from bottle.operator.queue import Decision, Proposal


def of_proposal(identity: str, proposal: Proposal) -> dict[str, Any]:
    """Return the record of a proposal that is queued; it grants nothing."""
    return {
        "host": identity,
        "listener": "supervise",
        "principal": f"bottle:{identity}",
        "layer": "bottle",
        "step": {"type": "proposal", **_what(proposal), "why": proposal.why},
        "requires": [f"proposal:{proposal.candidate.subject}"],
        "reason": "it waits for a decision",
    }


def of_refusal(identity: str, reason: str, count: object, principal: str | None = None) -> dict[str, Any]:
    """Return the record of something that wasn't taken; `count`: how often by now."""
    step: dict[str, Any] = {"type": "proposal"}
    if isinstance(count, int):
        step["count"] = count
    return {
        "host": identity,
        "listener": "supervise",
        "principal": principal or f"bottle:{identity}",
        "layer": "bottle" if principal is None else "operator",
        "step": step,
        "requires": [],
        "decision": "deny",
        "reason": reason,
    }


def of_decision(
    identity: str, who: str, proposal: Proposal, decision: Decision, lines: list[str], after: LivePolicy
) -> dict[str, Any]:
    """Return the record of a decision with its diff. It is written before anything is changed."""
    step = {"type": "decision", **_what(proposal), "diff": lines, "policy": decision.policy, "becomes": after.digest}
    if decision.body is not None:
        step["edited"] = dict(decision.body)
    return {
        "host": identity,
        "listener": "operator",
        "principal": who,
        "layer": "operator",
        "step": step,
        "requires": [f"proposal:{proposal.candidate.subject}"],
        "decision": "allow" if decision.approve else "deny",
        "reason": decision.reason or ("approved" if decision.approve else "rejected"),
    }


def of_failure(identity: str, proposal: Proposal, why: str) -> dict[str, Any]:
    """Return the record of an approval that couldn't be carried out."""
    return {
        "host": identity,
        "listener": "operator",
        "principal": f"bottle:{identity}",
        "layer": "operator",
        "step": {"type": "decision", **_what(proposal)},
        "requires": [f"proposal:{proposal.candidate.subject}"],
        "decision": "deny",
        "reason": f"not carried out, nothing is granted: {why}",
    }


def _what(proposal: Proposal) -> dict[str, Any]:
    candidate = proposal.candidate
    return {
        "proposal": proposal.number,
        "kind": candidate.kind,
        "change": dict(candidate.body),
        "digest": candidate.digest,
    }
