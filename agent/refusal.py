"""A refusal goes into the audit before the caller hears of it."""

from __future__ import annotations

from agent.asker import Asker
from agent.desk import Desk
from opsexec.errors import AuditUnavailable, OpsError
from opsexec.steps.base import Step
from opsexec.steps.registry import redact


def refused(desk: Desk, asker: Asker, step: Step | None, error: OpsError) -> OpsError:
    """Audit a refusal; returns what the caller is told, which is that there is no audit when there is none."""
    shown = {"type": "request"} if step is None else redact(step)
    try:
        desk.refuse(asker.listener, asker.principal, shown, error.message)
    except AuditUnavailable as unavailable:
        return unavailable
    return error
