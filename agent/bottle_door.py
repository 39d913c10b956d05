"""The door of a bottle's socket: what stands here is all that a bottle can ask of this host.

An operator's steps are not refused here but unknown: of a request the name of its step is read, and nothing that could
decode more of it. The agent's other routes aren't there either.
"""

from __future__ import annotations

import msgspec

from agent import http_server as web
from agent.answer import Answer
from agent.asker import Asker
from agent.body import JSON_TYPE, Body
from agent.bottle_grant import VERBS
from agent.desk import Desk
from agent.whoami import whoami
from opsexec.errors import OpsError, ProtocolError, UsageError
from opsexec.steps.registry import brief, printable
from opsexec.wire import StepRequest

MAX_REQUEST_BYTES = 64 << 10


class Named(msgspec.Struct, frozen=True):
    """All of a step that is looked at: its name."""

    type: str


async def serve_bottle(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Answer a bottle's request: who it is, or that what it asks for is unknown."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    shown = printable(f"{request.method} {request.path}"[:200])
    try:
        if (request.method, request.path) == ("GET", "/v1/whoami"):
            desk.bottle_turns.take(asker.principal)
            return await whoami(desk, request, asker)
        if (request.method, request.path) != ("POST", "/v1/steps"):
            raise UsageError(f"there is no {shown!r} here", hint="this is a bottle's socket")
        if request.content_type == JSON_TYPE:
            raise ProtocolError("a bottle's socket takes frames", hint="see docs/agent.md")
        body = Body(request, MAX_REQUEST_BYTES, desk.config.limits.request_timeout_s)
        shown = _name(await body.request())
        raise UsageError(f"unknown verb {shown!r}", hint="a bottle's are: " + ", ".join(sorted(VERBS)))
    except OpsError as error:
        refused = error
        try:
            desk.refuse(asker.listener, asker.principal, {"type": "request", "request": shown}, error.message)
        except OpsError as unavailable:
            refused = unavailable
    response = await answer.error(refused)
    response.force_close()
    return response


def _name(wanted: StepRequest) -> str:
    """Return what a step calls itself."""
    try:
        return brief(msgspec.msgpack.decode(bytes(wanted.step), type=Named).type[:80])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a request: {error}", hint="see docs/agent.md") from error
