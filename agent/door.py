"""The door: every request passes here first. Who asks is settled before anything of what they ask is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from agent import http_server as web
from agent.answer import Answer
from agent.asker import Asker
from agent.bottle_door import serve_bottle
from agent.desk import Desk
from agent.identity import Identity
from agent.principal import BOTTLE
from agent.runs import follow_run, list_runs, signal_run
from agent.say import say
from agent.schedule.manage import list_schedules, show_schedule
from agent.steps import copy_step, follow_events, run_step
from agent.tty.answering import answer_question, list_questions
from agent.tty.consent import oversees
from agent.tty.opening import open_terminal
from agent.tty.watching import list_terminals, send_recording, watch_terminal
from agent.whoami import whoami
from opsexec.errors import CapabilityDenied, OpsError, ProtocolError, UsageError
from opsexec.steps.registry import printable
from opsexec.wire import ERROR, FRAMES_TYPE, PROTOCOL, VERSION_HEADER, frame, require_same_major
from opsexec.wire_errors import pack_error

Handler = Callable[[Desk, web.BaseRequest, Asker], Awaitable[web.StreamResponse]]

ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/v1/steps"): run_step,
    ("POST", "/v1/sync"): copy_step,
    ("GET", "/v1/events"): follow_events,
    ("GET", "/v1/runs"): list_runs,
    ("GET", "/v1/runs/*"): follow_run,
    ("POST", "/v1/runs/*/signal"): signal_run,
    ("POST", "/v1/tty"): open_terminal,
    ("GET", "/v1/tty"): list_terminals,
    ("GET", "/v1/tty/*"): watch_terminal,
    ("GET", "/v1/tty/*/recording"): send_recording,
    ("GET", "/v1/consent"): list_questions,
    ("POST", "/v1/consent/*"): answer_question,
    ("GET", "/v1/schedules"): list_schedules,
    ("GET", "/v1/schedules/*"): show_schedule,
    ("GET", "/v1/whoami"): whoami,
}
"""By method and path; `*` stands for one segment."""

OVERSEERS = frozenset((list_questions, answer_question, watch_terminal, signal_run))
"""What a user who is asked for consent needs no grant for; each looks itself at what they were asked about."""


class Door:
    """Answers requests for one desk. `principal` comes from the connection alone."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def handle(self, request: web.BaseRequest, listener: str, identity: Identity) -> web.StreamResponse:
        """Answer one request."""
        desk = self._desk
        principal = identity.principal
        grants = desk.ceiling.grants(principal)
        if principal is None or not (grants or self._may_oversee(request, listener, principal)):
            reason = identity.why or f"{principal or 'nobody who is known here'} has no grant on this host"
            denied = CapabilityDenied("a grant", (), layer="agent", reason=reason)
            return await self._refuse(request, listener, principal, denied, reason)
        asker = Asker(principal, listener, grants)
        try:
            if request.version != web.HttpVersion11:
                raise ProtocolError("the request is not HTTP/1.1", hint="see docs/agent.md")
            _require_plain(request)
            said = request.headers.get(VERSION_HEADER)
            if said is not None:
                require_same_major(said)
            if principal.startswith(BOTTLE):
                return await serve_bottle(desk, request, asker)
            handler = _route(request)
        except OpsError as error:
            return await self._refuse(request, listener, principal, error, error.message)
        return await handler(desk, request, asker)

    def _may_oversee(self, request: web.BaseRequest, listener: str, principal: str) -> bool:
        if not oversees(self._desk.config, listener, principal):
            return False
        try:
            return _route(request) in OVERSEERS
        except OpsError:
            return False

    def knows(self, listener: str, principal: str | None) -> bool:
        """Whether anything here is for this principal, by a grant or as who is asked for consent."""
        return bool(self._desk.ceiling.grants(principal)) or oversees(self._desk.config, listener, principal)

    async def _refuse(
        self, request: web.BaseRequest, listener: str, principal: str | None, error: OpsError, why: str
    ) -> web.StreamResponse:
        """Audit a request that gets no further, and say so; its body stays unread."""
        shown = {"type": "request", "request": printable(f"{request.method} {request.path}"[:200])}
        try:
            self._desk.refuse(listener, principal, shown, why)
        except OpsError as unavailable:
            error = unavailable
        answer = await Answer(request, self._desk.config.limits.stall_timeout_s).error(error)
        answer.force_close()
        return answer

    def revoked(self, listener: str, was: str | None, identity: Identity) -> OpsError:
        """Audit that a connection is no longer who it was; returns what its caller is told."""
        why = identity.why or f"the connection is now {identity.principal}"
        error: OpsError = CapabilityDenied("a grant", (), layer="agent", reason=f"no longer {was}: {why}")
        try:
            self._desk.refuse(listener, was, {"type": "identity"}, f"no longer {was}: {why}; what it ran is ended")
        except OpsError as unavailable:
            error = unavailable
        return error

    def fault(self, listener: str, principal: str | None, status: int, kind: str) -> web.Response:
        """Audit and answer a request that is no HTTP, or whose handling failed in a way nobody foresaw."""
        error: OpsError = ProtocolError(f"the request can't be read as HTTP ({kind})", hint="see docs/agent.md")
        if status >= 500:
            say(f"{kind} while serving {principal} on {listener}")
            error = OpsError(f"the agent failed ({kind})", hint="look at its log; whether the step ran is in its audit")
        try:
            self._desk.refuse(listener, principal, {"type": "request"}, error.message)
        except OpsError as unavailable:
            error = unavailable
        body = frame(ERROR, msgspec.msgpack.encode(pack_error(error)))
        return web.Response(status=status, body=body, headers={"Content-Type": FRAMES_TYPE, VERSION_HEADER: PROTOCOL})


def _require_plain(request: web.BaseRequest) -> None:
    """Raise ProtocolError for what would make a body other bytes than were sent, or the connection no HTTP."""
    headers = request.headers
    coding = headers.get("Transfer-Encoding")
    if coding is not None and coding.lower() != "chunked":
        raise ProtocolError("the transfer coding is not chunked alone", hint="send the body as it is")
    if "Content-Encoding" in headers or "Upgrade" in headers:
        raise ProtocolError("neither coded bodies nor upgrades are taken", hint="send the body as it is")


def _route(request: web.BaseRequest) -> Handler:
    exact = ROUTES.get((request.method, request.path))
    if exact is not None and "*" not in request.path:
        return exact
    parts = request.path.split("/")
    methods = []
    for (method, path), handler in ROUTES.items():
        pattern = path.split("/")
        if len(pattern) == len(parts) and all(want in ("*", have) for want, have in zip(pattern, parts, strict=True)):
            if method == request.method:
                return handler
            methods.append(method)
    if methods:
        raise UsageError(f"{request.method[:20]!r} is not for {request.path[:80]!r}", hint=f"use {', '.join(methods)}")
    raise UsageError(f"there is no {request.path[:80]!r} here", hint="see docs/agent.md")
