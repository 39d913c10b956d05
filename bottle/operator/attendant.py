"""The launcher's side: takes proposals from the bundle, keeps them, and carries out what a person decides, once.

What the bundle says is only ever a proposal. A decision comes from the operator's own directory; nothing that an agent
or a taken-over daemon can write to is read as one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pwd
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bottle.errors import PolicyInDoubt
from bottle.operator.candidate import BadProposal, Candidate, read_candidate
from bottle.operator.live import LivePolicy, changed, difference
from bottle.operator.queue import Decision, Proposal, Queue, Status, decided
from bottle.operator.records import of_decision, of_failure, of_proposal, of_refusal
from opsexec.errors import OpsError
from opsexec.executor import AuditSink

POLL_S = 0.1
MAX_PENDING = 8
MAX_EVER = 64
MAX_REJECTED = 3
MAX_WHY = 2000

Send = Callable[[str], object]
Apply = Callable[[LivePolicy], Awaitable[None]]


class Attendant:
    """One bottle's. `rebuild`: set to the policy that the bottle is to be rebuilt with, once that is approved.

    `trying`: it is being rebuilt, and its agent doesn't run yet.
    `known`: the name of a secret of this bottle's that stands in a text, or None.
    """

    def __init__(
        self,
        identity: str,
        queue: Queue,
        policy: LivePolicy,
        audit: AuditSink,
        known: Callable[[bytes], str | None],
        say: Callable[[str], None],
    ) -> None:
        self.identity = identity
        self.policy = policy
        self.rebuild: LivePolicy | None = None
        self.trying = False
        self.audit = audit
        self.queue = queue
        self._known = known
        self._say = say
        self._proposals: dict[int, Proposal] = {}
        self._refused: dict[str, int] = {}
        self._send: Send = lambda _: None
        queue.begin()
        queue.write_policy(policy)

    # -- what the agent asks --------------------------------------------------------------------------------------

    def take(self, event: dict[str, Any]) -> None:
        """Take one event of the supervise daemon's."""
        if event.get("event") == "refused":
            self._note_refusal(str(event.get("reason", ""))[:200], event.get("count"))
        if event.get("event") != "ask" or not isinstance(event.get("ask"), int):
            return
        try:
            proposal = self._queued(event)
            answer = {"proposal": proposal.number, "status": proposal.status, "reason": proposal.reason}
        except BadProposal as error:
            self._count_refusal(error.message)
            answer = {"status": "refused", "reason": error.message}
        self._send(json.dumps({"answer": event["ask"], **answer}))

    def _queued(self, event: dict[str, Any]) -> Proposal:
        why = event.get("why")
        if not isinstance(why, str) or not 0 < len(why) <= MAX_WHY or not why.isprintable():
            raise BadProposal("why is no short line of text")
        candidate = read_candidate(event.get("kind"), event.get("candidate"))
        if self._known(f"{candidate.canonical} {why}".encode()) is not None:
            raise BadProposal("the proposal holds a secret of this bottle")
        same = [each for each in self._proposals.values() if each.candidate == candidate]
        if same and same[-1].status in ("pending", "rejected"):
            # Asked again, it is the same proposal: nobody is asked twice, and a no stays one.
            again = self._proposals[same[-1].number] = dataclasses.replace(same[-1], times=same[-1].times + 1)
            if again.times & (again.times - 1) == 0:
                self.queue.write(again)
            return again
        about = [each for each in self._proposals.values() if _subject(each.candidate) == _subject(candidate)]
        if any(each.status == "pending" for each in about):
            raise BadProposal("another proposal about this waits already: one at a time")
        if sum(each.status == "rejected" for each in about) >= MAX_REJECTED:
            raise BadProposal("proposals about this were rejected too often")
        if sum(each.status == "pending" for each in self._proposals.values()) >= MAX_PENDING:
            raise BadProposal(f"{MAX_PENDING} proposals wait already")
        if len(self._proposals) >= MAX_EVER:
            raise BadProposal(f"{MAX_EVER} proposals were made already, which is all that a bottle may")
        changed(self.policy, candidate)
        return self._new(candidate, why)

    def _new(self, candidate: Candidate, why: str) -> Proposal:
        proposal = Proposal(len(self._proposals) + 1, candidate, why, time.time())
        self.audit.append(of_proposal(self.identity, proposal))
        self.queue.write(proposal)
        self._proposals[proposal.number] = proposal
        self._say(f"{self.identity} proposes a change ({candidate.kind}); `bottle proposals` shows it")
        return proposal

    def _count_refusal(self, reason: str) -> None:
        self._note_refusal(reason, self._refused.get(reason, 0) + 1)

    def _note_refusal(self, reason: str, count: object) -> None:
        """Audit a refusal the 1st, 2nd, 4th, ... time: a flood fills no disk, whoever counts."""
        if len(self._refused) >= MAX_EVER and reason not in self._refused:
            reason, count = "other reasons", self._refused.get("other reasons", 0) + 1
        if not isinstance(count, int) or count <= self._refused.get(reason, 0):
            return
        self._refused[reason] = count
        if count & (count - 1) == 0:
            self.audit.append(of_refusal(self.identity, reason, count))

    # -- what a person decides ------------------------------------------------------------------------------------

    def attach(self, send: Send) -> None:
        """Take the line to a daemon that is about to start; decisions wait until its agent runs."""
        self._send = send

    async def watch(self, apply: Apply) -> None:
        """Carry out decisions until one needs the bottle rebuilt: then return, with `rebuild` set.

        `apply` puts a policy into force, or raises OpsError and has changed nothing. What else it raises ends this.
        """
        self.trying = False
        for proposal in self._proposals.values():
            self._tell(proposal)
        while self.rebuild is None:
            await self.carry_out_what_is_there(apply)
            await asyncio.sleep(POLL_S)

    async def carry_out_what_is_there(self, apply: Apply) -> None:
        """Carry out the decisions that wait by now, one after the other."""
        for decision in self.queue.claim():
            await self._carry_out(decision, apply)
            if self.rebuild is not None:
                return  # what waits behind it was decided about a policy that is about to be another

    async def _carry_out(self, decision: Decision, apply: Apply) -> None:
        proposal = self._proposals.get(decision.number)
        try:
            if proposal is None:
                raise BadProposal("no such proposal")
            done, text = await self._decided(proposal, decision, apply)
        except BadProposal as error:
            done, text = False, error.message
            self.audit.append(of_refusal(self.identity, f"a decision is void: {text}", None, _who(decision.uid)))
        except PolicyInDoubt as error:
            self.queue.conclude(decision, False, f"{error.message}; the bottle ends")
            raise
        self.queue.conclude(decision, done, text)

    async def _decided(self, proposal: Proposal, decision: Decision, apply: Apply) -> tuple[bool, str]:
        if proposal.status != "pending":
            raise BadProposal(f"it is {proposal.status} already")
        if decision.candidate != proposal.candidate.digest:
            raise BadProposal("it is another change than the one that was shown")
        who = _who(decision.uid)
        if not decision.approve:
            self.audit.append(of_decision(self.identity, who, proposal, decision, [], self.policy))
            self._settle(proposal, "rejected", decision.reason)
            return True, f"proposal {proposal.number} is rejected"
        if decision.policy != self.policy.digest:
            raise BadProposal("the policy has changed since it was shown")
        candidate = proposal.candidate
        if decision.body is not None:
            candidate = read_candidate(candidate.kind, decision.body)
        after = changed(self.policy, candidate)
        lines = difference(self.policy, after)
        self.audit.append(of_decision(self.identity, who, proposal, decision, lines, after))
        if candidate.kind == "capability":
            self.rebuild = after
            self._settle(proposal, "approved", "the bottle is rebuilt and resumed")
            return True, "approved; the bottle is stopped and resumed with: " + "; ".join(lines)
        try:
            await apply(after)
        except PolicyInDoubt as error:
            self.audit.append(of_failure(self.identity, proposal, error.message))
            self._settle(proposal, "failed", "it couldn't be carried out; the bottle ends")
            raise
        except OpsError as error:
            self.audit.append(of_failure(self.identity, proposal, error.message))
            self._settle(proposal, "failed", "it couldn't be carried out; nothing is granted")
            return False, f"it couldn't be carried out, and nothing is granted: {error.message}"
        self.policy = after
        self.queue.write_policy(after)
        self._tell_routes()
        self._settle(proposal, "approved", "as the operator edited it" if decision.body is not None else "")
        return True, "in force: " + "; ".join(lines)

    def rebuilding(self) -> LivePolicy:
        """Return the policy that the bottle is to be rebuilt with, from here on the live one."""
        assert self.rebuild is not None
        self.policy, self.rebuild, self.trying = self.rebuild, None, True
        self.queue.write_policy(self.policy)
        return self.policy

    def not_rebuilt(self, policy: LivePolicy, why: str) -> None:
        """Take note that the bottle didn't come up with it, and goes on under this policy as before."""
        self.policy, self.trying = policy, False
        self.queue.write_policy(policy)
        approved = [each for each in self._proposals.values() if each.candidate.kind == "capability"]
        last = max((each for each in approved if each.status == "approved"), key=lambda each: each.decided_at or 0.0)
        self.audit.append(of_failure(self.identity, last, why))
        self._settle(last, "failed", "the bottle didn't come up with it; nothing is granted")

    def over(self) -> None:
        """Void what still waits: nobody's word counts for a bottle that has ended."""
        for proposal in [each for each in self._proposals.values() if each.status == "pending"]:
            self._settle(proposal, "void", "the bottle has ended")

    def _settle(self, proposal: Proposal, status: Status, reason: str) -> None:
        settled = self._proposals[proposal.number] = decided(proposal, status, reason, time.time())
        self.queue.write(settled)
        self._tell(settled)

    def _tell(self, proposal: Proposal) -> None:
        told = {"decided": proposal.number, "status": proposal.status, "reason": proposal.reason}
        self._send(json.dumps(told))

    def _tell_routes(self) -> None:
        self._send(json.dumps({"routes": told_routes(self.policy)}))


def told_routes(policy: LivePolicy) -> list[dict[str, Any]]:
    """Return what the agent is told of its egress: what it may ask, and if it is known there; no slot, no address."""
    found = []
    for route in policy.routes:
        told: dict[str, Any] = {
            "host": route.host,
            "path_allowlist": None if route.path_allowlist is None else list(route.path_allowlist),
            "credential": route.scheme is not None,
        }
        limits = {"methods": route.methods, "query_allowlist": route.query}
        found.append({**told, **{name: list(each) for name, each in limits.items() if each is not None}})
    return found


def _subject(candidate: Candidate) -> tuple[str, str]:
    return candidate.kind, candidate.subject


def _who(uid: int) -> str:
    try:
        return f"unix:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"unix:{uid}"
