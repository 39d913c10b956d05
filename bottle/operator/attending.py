"""An attendant for as long as a bottle is attended to, and the loop by which an approved rebuild is carried out."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottle.credentials import Credentials
from bottle.launch import Rebuild
from bottle.operator.attendant import Attendant
from bottle.operator.live import LivePolicy, live_policy, resumed
from bottle.operator.queue import Queue, QueueUnreadable
from bottle.plan import BottlePlan
from opsexec.errors import OpsError
from opsexec.executor import AuditSink, RunOutput
from opsexec.secret import reveal

if TYPE_CHECKING:
    from bottle.attended import Attended


@asynccontextmanager
async def attending(
    plan: BottlePlan, directory: Path, secrets: Credentials, audit: AuditSink, say: Callable[[str], None]
) -> AsyncIterator[Attendant | None]:
    """Keep a queue for a bottle with supervise; None for one without. At the end what waits is void."""
    if not plan.supervise:
        yield None
        return
    known = _finder(secrets)
    attendant = Attendant(plan.identity, Queue(directory), live_policy(plan), audit, known, say)
    try:
        yield attendant
    finally:
        try:
            attendant.over()
        except QueueUnreadable as error:  # it is void all the same: nobody answers for a bottle that has ended
            say(f"warning: {plan.identity}: what waited isn't marked as void: {error.message}")


def _finder(secrets: Credentials) -> Callable[[bytes], str | None]:
    from opsexec.far.known_values import KnownValues

    values: dict[str, Any] = {**secrets.tokens, **secrets.env}
    known = KnownValues({name: reveal(value) for name, value in values.items()})
    return known.find


async def rebuilding(
    whole: Attended, attendant: Attendant | None, once: Callable[[Attended], Awaitable[RunOutput]]
) -> RunOutput:
    """Launch, and again with another plan each time a person approves what needs that.

    A rebuild that doesn't come up goes back to the plan before, which the agent is told.
    """
    before: tuple[BottlePlan, LivePolicy] | None = None  # with all that was approved since its launch
    while True:
        try:
            return await once(whole)
        except Rebuild:
            assert attendant is not None
            before = whole.plan, attendant.policy
            whole = dataclasses.replace(whole, plan=resumed(whole.plan, attendant.rebuilding()), resume=True)
        except OpsError as error:
            if before is None or attendant is None or not attendant.trying:
                raise
            whole.say(f"the rebuild failed, the bottle goes on as it was: {error}")
            attendant.not_rebuilt(before[1], error.message)
            whole = dataclasses.replace(whole, plan=resumed(*before))
            before = None
