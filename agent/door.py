"""The door: every request passes here first. Who asks is settled before anything of what they ask is looked at."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import HttpVersion11, web

from agent.answer import Answer
from agent.asker import Asker
from agent.desk import Desk
from agent.runs import follow_run, list_runs, signal_run
from agent.steps import copy_step, run_step
from agent.whoami import whoami
from opsexec.errors import CapabilityDenied, OpsError, ProtocolError, UsageError
from opsexec.steps.registry import printable
from opsexec.wire import ERROR, FRAMES_TYPE, PROTOCOL, VERSION_HEADER, frame, require_same_major
from opsexec.wire_errors import pack_error

Handler = Callable[[Desk, web.BaseRequest, Asker], Awaitable[web.StreamResponse]]

ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/v1/steps"): run_step,
    ("POST", "/v1/sync"): copy_step,
    ("GET", "/v1/runs"): list_runs,
    ("GET", "/v1/runs/*"): follow_run,
    ("POST", "/v1/runs/*/signal"): signal_run,
    ("GET", "/v1/whoami"): whoami,
}
"""By method and path; `*` stands for one segment."""


class Door:
    """Answers requests for one desk. `principal` comes from the connection alone."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def handle(self, request: web.BaseRequest, listener: str, principal: str | None) -> web.StreamResponse:
        """Answer one request."""
        desk = self._desk
        grants = desk.ceiling.grants(principal)
        if principal is None or not grants:
            who = principal or "nobody who is known here"
            denied = CapabilityDenied("a grant", (), layer="agent", reason=f"{who} has no grant on this host")
            return await self._refuse(request, listener, principal, denied, denied.reason or "")
        try:
            if request.version != HttpVersion11:
                raise ProtocolError("the request is not HTTP/1.1", hint="see docs/agent.md")
            said = request.headers.get(VERSION_HEADER)
            if said is not None:
                require_same_major(said)
            handler = _route(request)
        except OpsError as error:
            return await self._refuse(request, listener, principal, error, error.message)
        return await handler(desk, request, Asker(principal, listener, grants))

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

    def fault(self, listener: str, principal: str | None, status: int, kind: str) -> web.Response:
        """Audit and answer a request that is no HTTP, or whose handling failed in a way nobody foresaw."""
        error: OpsError = ProtocolError(f"the request can't be read as HTTP ({kind})", hint="see docs/agent.md")
        if status >= 500:
            print(f"ops-agent: {kind} while serving {principal} on {listener}", file=sys.stderr, flush=True)
            error = OpsError(f"the agent failed ({kind})", hint="look at its log; whether the step ran is in its audit")
        try:
            self._desk.refuse(listener, principal, {"type": "request"}, error.message)
        except OpsError as unavailable:
            error = unavailable
        body = frame(ERROR, msgspec.msgpack.encode(pack_error(error)))
        return web.Response(status=status, body=body, headers={"Content-Type": FRAMES_TYPE, VERSION_HEADER: PROTOCOL})


def _route(request: web.BaseRequest) -> Handler:
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
