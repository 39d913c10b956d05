"""`/v1/runs`: what runs and ran here, its output from any point, and signals to it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any
from urllib.parse import parse_qs

import msgspec

from agent import http_server as web
from agent.answer import Answer
from agent.asker import Asker
from agent.desk import ActiveRun, Desk
from agent.detached import end_of
from agent.refusal import reading
from agent.run_store import RunRecord
from agent.tty.consent import oversees
from agent.tty.recordings import Recorded
from opsexec.capability import Requirement
from opsexec.errors import CapabilityDenied, OpsError, StepFailed, UsageError
from opsexec.far.tree_end import members, send
from opsexec.wire import ERR, OFFSET_HEADER, OUT, FrameParser, Result, require_run_id

MAX_SIGNAL_BYTES = 1024
END = "end"
"""Beside the signals' names: end the run's whole process tree, and wait until it has gone."""

SIGNALS = {
    name: signal.Signals[name]
    for name in (
        "SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGSTOP", "SIGCONT", "SIGWINCH",
    )
}  # fmt: skip
END_S = 10.0
AGAIN_S = 0.1


class SignalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a signal request, as JSON."""

    signal: str


async def list_runs(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Answer with the caller's own runs, and those of others that `run.read` lets it see; the newest first."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        desk.allow(asker, {"type": "runs.list"}, "own runs, and those that run.read admits")
        runs = [_of_active(each) for each in desk.active.values() if why_admitted(asker, each, "run.read")]
        for record in desk.detached.store.records():
            if why_admitted(asker, record, "run.read"):
                runs.append(_of_detached(desk, record))
        return await answer.result(Result(run="runs", exit_code=0, value={"runs": runs}))
    except OpsError as error:
        return await answer.error(error)


async def follow_run(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Answer with a detached run's output from an offset of its log on, while it is made, and then with its end."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        with reading(desk, asker, request):
            run = require_run_id(request.path.removeprefix("/v1/runs/"))
            begin = _offset(request)
        record = desk.detached.store.record(run)
        require_admitted(desk, asker, record, run, "run.read")
        assert record is not None
        with desk.following(asker, run, "run.read", lambda now: why_admitted(now, record, "run.read")):
            store = desk.detached.store
            offset = await asyncio.to_thread(store.frame_start, record.run, begin)
            answer.headers[OFFSET_HEADER] = str(offset)
            answer.begin()
            async for block in desk.detached.follow(record.run, offset):
                await _pass_on(answer, block)
        status = store.status(record.run)
        end = UsageError(f"the run {run} was removed") if status is None else end_of(run, status)
        return await (answer.error(end) if isinstance(end, OpsError) else answer.result(end))
    except OpsError as error:
        return await answer.error(error)
    except FileNotFoundError:
        return await answer.error(UsageError("the run was removed meanwhile: it is one of the oldest"))
    finally:
        answer.close()


async def _pass_on(answer: Answer, block: bytes) -> None:
    """Send frames of a log on as they are; as lines of JSON where those are wanted."""
    if not answer.lines:
        await answer.write_frames(block)
        return
    pieces: list[tuple[int, bytes]] = []
    FrameParser(lambda kind, data: pieces.append((kind, data)), frozenset((OUT, ERR)), 0).feed(block)
    for kind, data in pieces:
        await answer.write("stdout" if kind == OUT else "stderr", data)


async def signal_run(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Send a signal to every process of a run, or end it."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        with reading(desk, asker, request):
            run = require_run_id(request.path.removeprefix("/v1/runs/").removesuffix("/signal"))
            wanted = await _wanted_signal(request, desk.config.limits.request_timeout_s)
        target: RunRecord | ActiveRun | None = desk.active.get(run) or desk.detached.store.record(run)
        require_admitted(desk, asker, target, run, "run.signal", wanted)
        assert target is not None
        if wanted != END:
            count = await asyncio.to_thread(_signal_all, target.mark, SIGNALS[wanted])
            return await answer.result(Result(run=run, exit_code=0, value={"signalled": count}))
        await _end(desk, run, asker)
        return await answer.result(Result(run=run, exit_code=0, value={"ended": True}))
    except OpsError as error:
        return await answer.error(error)


async def _wanted_signal(request: web.BaseRequest, within_s: float) -> str:
    data = b""
    try:
        async with asyncio.timeout(within_s):
            while len(data) <= MAX_SIGNAL_BYTES and (block := await request.content.readany()):
                data += block
        name = msgspec.json.decode(data, type=SignalRequest).signal
    except (TimeoutError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError("not a signal request", hint='a body like {"signal": "SIGTERM"}') from error
    if name != END and name not in SIGNALS:
        raise UsageError(f"unknown signal {name[:40]!r}", hint="one of: " + ", ".join((END, *SIGNALS)))
    return name


def _signal_all(mark: str, number: signal.Signals) -> int:
    found = members(mark, 0, {})
    for pid, start in found.items():
        send(pid, start, number)
    return len(found)


async def _end(desk: Desk, run: str, asker: Asker) -> None:
    """End a run and wait until it has ended; one that has ended already is fine."""
    active = desk.active.get(run)
    try:
        async with asyncio.timeout(END_S):
            if active is not None:
                active.end(StepFailed(f"ended by {asker.principal}"))
                await active.over.wait()
                return
            over = desk.detached.settled(run)
            while not over.is_set():  # a runner that is still starting can't be told yet
                await asyncio.to_thread(desk.detached.store.end_runner, run)
                with contextlib.suppress(TimeoutError):  # then it is told once more
                    await asyncio.wait_for(over.wait(), AGAIN_S)
    except TimeoutError as error:
        raise StepFailed(f"the run {run} goes on after {END_S:g} s", hint="look at its processes") from error


def require_admitted(
    desk: Desk,
    asker: Asker,
    target: RunRecord | ActiveRun | Recorded | None,
    run: str,
    verb: str,
    wanted: str | None = None,
) -> None:
    """Let only those on who may do this to the run, audited; a run that isn't there is denied like another's."""
    step: dict[str, Any] = {"type": verb, "run": run}
    if wanted is not None:
        step["signal"] = wanted
    why = None if target is None else why_admitted(asker, target, verb) or why_asked(desk, asker, target)
    if target is None and _holds(asker, run, verb):
        desk.refuse(asker.listener, asker.principal, step, "there is no such run")
        raise UsageError(f"there is no run {run}", hint="a step that is not detached can't be followed from elsewhere")
    if target is None or why is None:
        held = sorted({text for each in asker.grants for text in each.describe(verb)})
        denied = CapabilityDenied(f"{verb}:{run}", held, layer="agent", reason="and it is no run of the caller's own")
        desk.refuse(asker.listener, asker.principal, step, denied.message)
        raise denied
    desk.allow(asker, step, why, run)


def why_asked(desk: Desk, asker: Asker, target: RunRecord | ActiveRun | Recorded) -> str | None:
    """Return why a person on the host may see and end it: they were asked about it, and are still to be asked."""
    if isinstance(target, RunRecord) or asker.principal not in target.overseers:
        return None
    return "asked for consent, on this host" if oversees(desk.config, asker.listener, asker.principal) else None


def why_admitted(asker: Asker, target: RunRecord | ActiveRun | Recorded, verb: str) -> str | None:
    """Return why a principal may read or signal a run, None when it may not."""
    if target.principal == asker.principal:
        return "the caller's own run"
    return "granted" if _holds(asker, target.run, verb) else None


def _holds(asker: Asker, run: str, verb: str) -> bool:
    return any(held.admits(Requirement(verb, run)) for held in asker.grants)


def _of_active(run: ActiveRun) -> dict[str, Any]:
    return {
        "run": run.run,
        "principal": run.principal,
        "step": dict(run.step),
        "begun": run.begun,
        "detached": False,
        "state": "running",
    }


def _of_detached(desk: Desk, record: RunRecord) -> dict[str, Any]:
    status = desk.detached.store.status(record.run)
    shown: dict[str, Any] = {
        "run": record.run,
        "principal": record.principal,
        "step": record.step,
        "begun": record.begun,
        "detached": True,
        "state": "running" if status is None else "failed" if status.error else "ended",
    }
    if status is not None:
        end = end_of(record.run, status)
        if isinstance(end, OpsError):
            shown |= {"error": end.code, "message": end.message}
        else:
            shown |= {"exit_code": end.exit_code, "signal": end.signal}
        shown |= {"duration_s": status.duration_s, "log_bytes": status.log_bytes}
    return shown


def _offset(request: web.BaseRequest) -> int:
    text = parse_qs(request.query_string).get("offset", ["0"])[-1]
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise UsageError(f"offset {text[:40]!r} is not a number of bytes", hint="like ?offset=0")
    return int(text)
