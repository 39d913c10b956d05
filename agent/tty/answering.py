"""`/v1/consent`: the questions that wait for this person, and their answer."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

import msgspec

from agent import http_server as web
from agent.answer import Answer
from agent.asker import Asker
from agent.desk import Desk
from agent.refusal import refused
from agent.tty.consent import oversees
from opsexec.errors import CapabilityDenied, OpsError, UsageError
from opsexec.wire import Result, require_run_id

MAX_BYTES = 1024
MAX_WAIT_S = 60.0


class Consent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an answer, as JSON."""

    consent: bool


async def list_questions(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Answer with the questions this principal may answer; `?wait=S`: once there is one, or so many seconds later."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        _require_overseer(desk, asker)
        consents = desk.terminals.consents
        wait_s = _wait(request)
        if wait_s:
            with desk.follower(asker):
                answer.begin()
                loop = asyncio.get_running_loop()
                until = loop.time() + wait_s
                while not consents.of(asker.principal) and (left := until - loop.time()) > 0:
                    await consents.asked(left)
        questions = [each.shown() for each in consents.of(asker.principal)]
        desk.allow(asker, {"type": "consent.list", "runs": [each["run"] for each in questions]}, "asked for consent")
        return await answer.result(Result(run="consent", exit_code=0, value={"questions": questions}))
    except OpsError as error:
        return await answer.error(refused(desk, asker, None, error))
    finally:
        answer.close()


async def answer_question(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Take a yes or a no."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        _require_overseer(desk, asker)
        run = require_run_id(request.path.removeprefix("/v1/consent/"))
        said_yes = await _said(request, desk.config.limits.request_timeout_s)
        question = desk.terminals.consents.question(run, asker.principal)
        step = {"type": "tty.consent", "run": run, "consent": said_yes}
        desk.allow(asker, step, f"asked about a terminal of {question.principal}", run)
        question.answer.set_result((said_yes, asker.principal))
        return await answer.result(Result(run=run, exit_code=0, value={"consent": said_yes}))
    except OpsError as error:
        return await answer.error(refused(desk, asker, None, error))


def _require_overseer(desk: Desk, asker: Asker) -> None:
    if not oversees(desk.config, asker.listener, asker.principal):
        reason = f"{asker.principal} is not asked for consent on this host"
        raise CapabilityDenied("consent.users", (), layer="agent", reason=reason)


async def _said(request: web.BaseRequest, within_s: float) -> bool:
    data = b""
    try:
        async with asyncio.timeout(within_s):
            while len(data) <= MAX_BYTES and (block := await request.content.readany()):
                data += block
        return msgspec.json.decode(data, type=Consent).consent
    except (TimeoutError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError("not an answer", hint='a body like {"consent": true}') from error


def _wait(request: web.BaseRequest) -> float:
    text = parse_qs(request.query_string).get("wait", ["0"])[-1]
    if not (text.isascii() and text.isdigit()) or len(text) > 4:
        raise UsageError(f"wait {text[:40]!r} is not a number of seconds", hint="like ?wait=30")
    return min(float(text), MAX_WAIT_S)
