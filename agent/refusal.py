"""A refusal goes into the audit before the caller hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opsexec.errors import AuditUnavailable, OpsError
from opsexec.steps.registry import printable, redact

if TYPE_CHECKING:
    from agent import http_server as web
    from agent.asker import Asker
    from agent.desk import Desk
    from opsexec.steps.base import Step


def refused(desk: Desk, asker: Asker, step: Step | None, error: OpsError) -> OpsError:
    """Audit a refusal; returns what the caller is told, which is that there is no audit when there is none."""
    return _refused(desk, asker, {"type": "request"} if step is None else redact(step), error)


@contextmanager
def reading(desk: Desk, asker: Asker, request: web.BaseRequest) -> Iterator[None]:
    """Audit what is wrong with a request as it is read (what it names, its body). Raises what its caller hears."""
    try:
        yield
    except OpsError as error:
        shown = {"type": "request", "request": printable(f"{request.method} {request.path}"[:200])}
        told = _refused(desk, asker, shown, error)
        if told is error:
            raise
        raise told from error


def _refused(desk: Desk, asker: Asker, shown: dict[str, Any], error: OpsError) -> OpsError:
    try:
        desk.refuse(asker.listener, asker.principal, shown, error.message)
    except AuditUnavailable as unavailable:
        return unavailable
    return error
