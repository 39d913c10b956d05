"""`POST /v1/steps` and `/v1/sync`: one step, judged, run and audited while its caller is connected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent import http_server as web
from agent.answer import Answer
from agent.asker import LAYER, Asker
from agent.attended import serve_attended
from agent.body import Body
from agent.ceiling import effective
from agent.desk import ActiveRun, Desk
from agent.detached import Starter, request_digest
from agent.events.query import events_request
from agent.far_copy import CopyExecutor, FarCopy
from agent.marked_host import MarkedHost
from agent.own_steps import AgentExecutor
from agent.refusal import refused
from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError, UsageError
from opsexec.executor import RunOutput
from opsexec.handlers.registry import handler_of
from opsexec.host_executor import HostExecutor
from opsexec.steps.base import Step
from opsexec.steps.registry import redact
from opsexec.wire import TO_AGENT, StepRequest
from opsexec.wire_copy import TO_COPY, CopyWords


async def run_step(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """`POST /v1/steps`: any step but a copy."""
    return await _serve(desk, request, asker)


async def copy_step(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """`POST /v1/sync`: a Push or Pull, whose other end is the caller's own."""
    return await _serve(desk, request, asker, copies=True)


async def follow_events(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """`GET /v1/events?names=runs,load&interval=5&count=3`: an Events step, for those who only read."""
    return await _serve(desk, request, asker, asked=lambda: events_request(request.query_string))


async def _serve(
    desk: Desk,
    request: web.BaseRequest,
    asker: Asker,
    *,
    copies: bool = False,
    asked: Callable[[], StepRequest] | None = None,
) -> web.StreamResponse:
    """Read the request, run its step, and answer; whatever goes wrong before it is admitted is audited here."""
    limits = desk.config.limits
    answer = Answer(request, limits.stall_timeout_s)
    body = Body(request, limits.max_request_bytes, limits.request_timeout_s, TO_COPY if copies else TO_AGENT)
    step: Step | None = None
    words: CopyWords | None = None
    try:
        with desk.slot(asker):
            try:
                wanted = await body.request() if asked is None else asked()
                step = wanted.decoded_step()
                attenuation = wanted.ceiling()
                _require_runnable(step, wanted, answer, copies)
                if copies:
                    words = await body.words()
                if not wanted.detach:
                    desk.claim(wanted.run)
            except OpsError as error:
                return await answer.error(refused(desk, asker, step, error))
            asker.grants = desk.ceiling.grants(asker.principal)  # as they are now: the body may have taken its time
            held = effective(asker.grants, attenuation, step)
            if wanted.detach:
                return await _detach(desk, asker, answer, held, wanted, step)
            return await _attended(desk, asker, answer, held, attenuation, wanted, step, body, words)
    except OpsError as error:
        return await answer.error(refused(desk, asker, step, error))
    finally:
        answer.close()


async def _attended(
    desk: Desk,
    asker: Asker,
    answer: Answer,
    held: CapabilitySet,
    attenuation: CapabilitySet | None,
    wanted: StepRequest,
    step: Step,
    body: Body,
    words: CopyWords | None,
) -> web.StreamResponse:
    """Run a step for a caller who waits. When they go, aiohttp cancels this, and the process tree is ended."""
    active = ActiveRun(wanted.run, asker, step, attenuation, held)
    host = MarkedHost(desk.host, active.mark)
    said: dict[str, Any] = {"principal": asker.principal, "listener": asker.listener, "layer": LAYER, "run": wanted.run}
    executor: HostExecutor
    if words is None:
        executor = AgentExecutor(desk, asker, held, attenuation, host, wanted.run)
    else:
        far = FarCopy(desk.name, active.mark, words, body, answer)
        executor = CopyExecutor(far, host, held, desk.audit, **said)
    stdin = body.stdin() if wanted.streams_stdin and words is None else None

    async def work() -> RunOutput:
        return await executor.run_streaming(step, answer, check=wanted.check, diff=wanted.diff, stdin=stdin)

    return await serve_attended(desk, active, answer, work, "the caller left; its process tree was ended")


async def _detach(
    desk: Desk, asker: Asker, answer: Answer, held: CapabilitySet, wanted: StepRequest, step: Step
) -> web.StreamResponse:
    """Start a run that lives on. Asked again for the same one, say that it is started: it is not run twice."""
    detached = desk.detached
    starter = Starter(desk.host, held, desk.audit, asker, wanted.run, detached.store)
    try:
        if wanted.check or wanted.streams_stdin:
            raise UsageError("check mode and streamed input don't go with detach", hint="give the input in the step")
        await detached.store.begun(wanted.run)
        known = detached.store.record(wanted.run)
        if known is not None:
            if (known.principal, known.request) != (asker.principal, request_digest(step)):
                raise UsageError(f"the run {wanted.run} is another one", hint="choose another run id")
            desk.allow(asker, redact(step), "asked for again: this run was started before", wanted.run)
            return await answer.started(wanted.run)
        starter.require_startable(step)
        desk.claim(wanted.run)
    except OpsError as error:
        return await answer.error(refused(desk, asker, step, error))
    try:
        await starter.start(step, wanted.run, desk.config.limits)
        return await answer.started(wanted.run)
    except OpsError as error:
        return await answer.error(error)
    finally:
        record = detached.store.record(wanted.run)
        if record is not None and not detached.store.is_settled(wanted.run):
            detached.watch(record)


def _require_runnable(step: Step, wanted: StepRequest, answer: Answer, copies: bool) -> None:
    """Raise BadStep or UsageError for what doesn't go this way."""
    handler_of(step)
    if (step.family == "sync") != copies:
        raise UsageError(
            f"a {type(step).__name__} step doesn't go this way", hint="copies go to /v1/sync, others don't"
        )
    if copies and (wanted.detach or answer.lines or not wanted.streams_stdin):
        raise UsageError("a copy is frames both ways, while its caller is connected", hint="use opsexec push or pull")
