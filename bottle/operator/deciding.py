"""Hand a decision to the bottle's launcher, and wait for what came of it. Used by the commands and the dashboard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from bottle.operator.candidate import Candidate, read_candidate
from bottle.operator.queue import Decision, Queue, new_nonce
from bottle.operator.shown import Shown, show
from bottle.state import State
from opsexec.errors import OpsError, UsageError

ANSWER_S = 40.0
POLL_S = 0.02
MAX_REASON = 500


class NotCarriedOut(OpsError):
    """A decision that the launcher refused, or didn't take."""

    code = "not_carried_out"


class Risky(UsageError):
    """A change that has reasons to look twice, approved without a word on them."""

    code = "risky"


def edited(shown: Shown, body: Mapping[str, Any]) -> Shown:
    """Return the proposal with the change as a person edited it, seen anew; raises BadProposal."""
    candidate: Candidate = read_candidate(shown.proposal.candidate.kind, body)
    return show(shown.bottle, shown.proposal, shown.policy, candidate)


def approve(state: State, shown: Shown, *, accept_risks: bool, wait: Callable[[float], None] = time.sleep) -> str:
    """Approve what is shown, as it is shown; returns what was done. Raises Risky, UsageError, NotCarriedOut."""
    if shown.problem:
        raise UsageError(
            f"it can't be carried out: {shown.problem}", hint="bottle reject it, or approve it --as another"
        )
    if shown.risks and not accept_risks:
        raise Risky("; ".join(shown.risks), hint="--accept-risks approves it all the same; --as FILE approves less")
    body = None if shown.candidate == shown.proposal.candidate else shown.candidate.body
    return _decide(state, shown, True, "", body, wait)


def reject(state: State, shown: Shown, reason: str, wait: Callable[[float], None] = time.sleep) -> str:
    """Reject it; the agent is told the reason."""
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise UsageError(f"the reason is over {MAX_REASON} characters, or can't be shown", hint="one short line")
    return _decide(state, shown, False, reason, None, wait)


def _decide(
    state: State,
    shown: Shown,
    approved: bool,
    reason: str,
    body: Mapping[str, Any] | None,
    wait: Callable[[float], None],
) -> str:
    queue = Queue(state.directory(shown.bottle))
    decision = Decision(
        nonce=new_nonce(),
        number=shown.proposal.number,
        approve=approved,
        candidate=shown.proposal.candidate.digest,
        policy=shown.policy.digest,
        reason=reason,
        body=body,
    )
    try:
        queue.decide(decision)
        outcome, withdrawn = _answer(queue, decision, state, shown.bottle, wait)
    except BaseException:  # Ctrl-C as well
        with contextlib.suppress(OSError):  # what broke it off is the one to tell, a read-only disk's word too
            queue.withdraw(decision)  # whoever breaks off has decided nothing, unless it was carried out already
        raise
    if outcome is None:
        hint = "nothing was changed by it" if withdrawn else f"bottle audit {shown.bottle} shows how far it came"
        raise NotCarriedOut(f"the launcher of {shown.bottle} doesn't answer, or has ended", hint=hint)
    carried_out, text = outcome
    if not carried_out:
        raise NotCarriedOut(text, host=shown.bottle, hint="`bottle proposals` shows what waits now")
    return text


def _answer(
    queue: Queue, decision: Decision, state: State, bottle: str, wait: Callable[[float], None]
) -> tuple[tuple[bool, str] | None, bool]:
    """Wait for what came of a decision; returns that, or None, and whether it was taken back."""
    end = time.monotonic() + ANSWER_S
    withdrawn = False
    while (outcome := queue.outcome(decision)) is None and not withdrawn:
        if not state.alive(bottle) or time.monotonic() > end:
            withdrawn = queue.withdraw(decision)
            if time.monotonic() > end + ANSWER_S or not (withdrawn or state.alive(bottle)):
                break
        wait(POLL_S)
    if outcome is None and not withdrawn:
        outcome = queue.outcome(decision)  # it may have been the launcher's last word
    return outcome, withdrawn
