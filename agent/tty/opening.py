"""`POST /v1/tty`: a terminal for a caller who is connected: keys and sizes come in frames, the screen goes out so."""

from __future__ import annotations

import asyncio

import msgspec

from agent import http_server as web
from agent.answer import Answer
from agent.asker import LAYER, Asker
from agent.attended import serve_attended
from agent.body import Body
from agent.ceiling import deciding
from agent.desk import ActiveRun, Desk
from agent.refusal import refused
from agent.tty.consent import overseers
from agent.tty.keys import Keys
from agent.tty.terminal_host import TerminalHost
from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError, ProtocolError, UsageError
from opsexec.executor import RunOutput, TtySession
from opsexec.host_executor import HostExecutor
from opsexec.steps import Tty
from opsexec.steps.base import Step
from opsexec.wire import RESIZE, SIZE, STDIN, TO_TERMINAL, StepRequest


async def open_terminal(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Read the request, judge it, open the terminal and serve it to its end."""
    limits = desk.config.limits
    answer = Answer(request, limits.stall_timeout_s)
    body = Body(request, limits.max_request_bytes, limits.request_timeout_s, kinds=TO_TERMINAL)
    step: Step | None = None
    try:
        with desk.slot(asker):
            try:
                wanted = await body.request()
                step = wanted.decoded_step()
                attenuation = wanted.ceiling()
                _require_terminal(wanted, step)
                desk.claim(wanted.run)
            except OpsError as error:
                return await answer.error(refused(desk, asker, step, error))
            assert isinstance(step, Tty)
            asker.grants = desk.ceiling.grants(asker.principal)  # as they are now: the body may have taken its time
            grant, held = deciding(asker.grants, attenuation, step)
            asks = grant.asks_consent or desk.config.consent.always
            active = ActiveRun(wanted.run, asker, step, attenuation, held)
            active.asks_consent = asks
            return await _attended(desk, asker, answer, body, active, step, held)
    except OpsError as error:
        return await answer.error(refused(desk, asker, step, error))
    finally:
        answer.close()


def _require_terminal(wanted: StepRequest, step: Step) -> None:
    if not isinstance(step, Tty):
        raise UsageError(f"a {type(step).__name__} step needs no terminal", hint="POST it to /v1/steps")
    if wanted.check or wanted.diff or wanted.detach or not wanted.streams_stdin:
        raise UsageError("a terminal is neither checked nor detached, and its keys are streamed")


async def _attended(
    desk: Desk,
    asker: Asker,
    answer: Answer,
    body: Body,
    active: ActiveRun,
    step: Tty,
    held: CapabilitySet,
) -> web.StreamResponse:
    """Serve a terminal. When its caller goes, aiohttp cancels this, and the process tree is ended."""
    run, asks = active.run, bool(active.asks_consent)
    if asks:
        active.overseers = overseers(desk.config, asker.principal)
    executor = HostExecutor(
        TerminalHost(desk, active, asker, asks, answer.note),
        held,
        desk.audit,
        principal=asker.principal,
        listener=asker.listener,
        layer=LAYER,
        run=run,
    )

    async def work() -> RunOutput:
        keys = Keys(body)
        try:
            session = await keys.or_left(executor.open_tty(step))
            try:
                output = await _converse(session, answer, keys)
                return msgspec.structs.replace(output, run=run)  # its own names the mark that ends processes
            finally:
                await session.aclose()
        finally:
            desk.terminals.live.pop(run, None)
            desk.terminals.recordings.finished(run)
            await keys.aclose()

    return await serve_attended(desk, active, answer, work, "the caller left; the terminal's process tree was ended")


async def _converse(session: TtySession, answer: Answer, keys: Keys) -> RunOutput:
    """Pass keys down and the screen up until the program ends; what breaks either way ends both."""
    typing = asyncio.create_task(_type(session, keys))
    drawing = asyncio.create_task(_draw(session, answer))
    try:
        over, _ = await asyncio.wait((typing, drawing), return_when=asyncio.FIRST_COMPLETED)
        if drawing not in over:
            typing.result()
            await session.aclose()  # the end of the keys is how a caller ends its terminal and still hears how it ended
            await drawing
        drawing.result()
    finally:
        for task in (typing, drawing):
            task.cancel()
        await asyncio.wait((typing, drawing))
    return await session.wait()


async def _type(session: TtySession, keys: Keys) -> None:
    while (found := await keys.next()) is not None:
        kind, data = found
        if kind == STDIN:
            await session.write(data)
        elif kind == RESIZE:
            session.resize(*_size(data))


def _size(data: bytes) -> tuple[int, int]:
    if len(data) != SIZE.size:
        raise ProtocolError("a terminal's size is two numbers of two bytes")
    columns, rows = SIZE.unpack(data)
    if not (0 < columns < 10_000 and 0 < rows < 10_000):
        raise ProtocolError("the terminal's size is out of range")
    return columns, rows


async def _draw(session: TtySession, answer: Answer) -> None:
    while data := await session.read():
        await answer.write("stdout", data)
