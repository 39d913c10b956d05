"""What a person is shown of a proposal, and the name it is approved by: data for the commands and the dashboard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bottle.operator.candidate import BadProposal, Candidate
from bottle.operator.live import LivePolicy, changed, difference
from bottle.operator.queue import Proposal, Queue, QueueUnreadable
from bottle.operator.risks import risks
from bottle.state import Metadata, State
from opsexec.errors import UsageError

TOKEN = 16


@dataclass(frozen=True)
class Shown:
    """One pending proposal beside the policy it would change. `problem`: why it can't be carried out as things are."""

    bottle: str
    proposal: Proposal
    policy: LivePolicy
    candidate: Candidate
    difference: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    problem: str = ""

    @property
    def token(self) -> str:
        """P: a hash over the bottle, the change and the live policy. When one of them is another, so is P."""
        words = (self.bottle, str(self.proposal.number), self.proposal.candidate.digest, self.policy.digest)
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:TOKEN]

    def rendered(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        proposal = self.proposal
        return {
            "id": self.token,
            "bottle": self.bottle,
            "number": proposal.number,
            "kind": proposal.candidate.kind,
            "change": dict(proposal.candidate.body),
            "why": proposal.why,
            "asked_at": proposal.asked_at,
            "times": proposal.times,
            "difference": list(self.difference),
            "risks": list(self.risks),
            "problem": self.problem,
        }


@dataclass
class Seen:
    """Everything that waits, and what couldn't be read."""

    waiting: list[Shown] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def show(bottle: str, proposal: Proposal, policy: LivePolicy, candidate: Candidate | None = None) -> Shown:
    """Return a proposal as it is shown; `candidate`: the change as a person edited it."""
    wanted = candidate or proposal.candidate
    try:
        lines = tuple(difference(policy, changed(policy, wanted)))
    except BadProposal as error:
        return Shown(bottle, proposal, policy, wanted, problem=error.message)
    return Shown(bottle, proposal, policy, wanted, lines, tuple(risks(policy, wanted)))


def waiting(state: State) -> Seen:
    """Return what waits for a decision in every running bottle: those of others are nobody's to answer."""
    seen = Seen()
    for metadata in state.running():
        try:
            seen.waiting += list(_waiting_in(state, metadata))
        except QueueUnreadable as error:
            seen.unreadable.append(str(error))
    return seen


def _waiting_in(state: State, metadata: Metadata) -> Iterator[Shown]:
    queue = Queue(state.directory(metadata.identity))
    pending = [each for each in queue.proposals() if each.status == "pending"]
    if pending:
        policy = queue.policy()
        yield from (show(metadata.identity, each, policy) for each in pending)


def find(state: State, token: str) -> Shown:
    """Return the proposal under this name; raises UsageError where nothing that waits has it any more."""
    found = [each for each in waiting(state).waiting if each.token == token]
    if len(found) != 1:
        hint = "`bottle proposals` shows what waits; a name changes with what it stands for, and ends with its bottle"
        raise UsageError(f"nothing waits under {token[:40]!r}", hint=hint)
    return found[0]
