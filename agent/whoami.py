"""`GET /v1/whoami`: who the agent takes the caller for, and what that principal may do here."""

from __future__ import annotations

from agent import http_server as web
from agent.answer import Answer
from agent.asker import Asker
from agent.desk import Desk
from opsexec.errors import OpsError
from opsexec.wire import PROTOCOL, Result


async def whoami(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Answer with the principal, the listener that proved it, and its grants."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        desk.allow(asker, {"type": "whoami"}, "every principal with a grant may ask this")
    except OpsError as error:
        return await answer.error(error)
    grants = [
        {
            "capabilities": held.describe(),
            "run_as": sorted(user for layer in held.layers for user in layer.run_as),
            "max_timeout_s": held.max_timeout_s,
            "max_output_bytes": held.max_output_bytes,
        }
        for held in asker.grants
    ]
    value = {
        "host": desk.name,
        "principal": asker.principal,
        "listener": asker.listener,
        "protocol": PROTOCOL,
        "grants": grants,
    }
    return await answer.result(Result(run="whoami", exit_code=0, value=value))
