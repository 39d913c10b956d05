"""ContainerExec: a program in a container that runs; no API ends one, so what it started is marked and ended inside."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from opsexec.capability import clean_path
from opsexec.engine.answers import Made, Running, shaped
from opsexec.engine.calls import Calls
from opsexec.engine.client import Engine, EngineRefused
from opsexec.engine.guard import Guard, entering, guarded
from opsexec.engine.stream import Exit, Hijacked
from opsexec.errors import OpsError, StepFailed
from opsexec.far.launch import MARKER
from opsexec.handlers.container_config import reading_secrets, secrets_header
from opsexec.handlers.container_found import existing
from opsexec.handlers.container_run import followed_to, let_go, to_the_end
from opsexec.handlers.context import Context, Outcome
from opsexec.hosts.port import ProcessExit
from opsexec.secret import Secret, reveal
from opsexec.steps.containers import ContainerExec
from opsexec.steps.text import as_bytes

END_S = 10.0
LOOK_S, MAX_LOOK_S = 0.05, 1.0
OUTLIVED_S = 1.0
"""Seconds that a program runs before its container is watched too: most have ended by then."""


async def run_in_container(step: ContainerExec, engine: Engine, context: Context) -> Outcome:
    """Run a program in a container to its end. In check mode it is not run."""
    there = await existing(engine, step.name, step.labels)
    if not there.state.running:
        raise StepFailed(f"container {step.name} isn't running", host=engine.host)
    if context.check:
        return Outcome(changed=True, skipped="check mode: programs are not run")
    container = there.id
    first = secrets_header(step.secrets) if step.secrets else b""
    first += b"" if step.stdin is None else as_bytes(reveal(step.stdin))
    takes_input = bool(first) or step.stdin is not None or context.stdin is not None
    user = step.user or there.config.user or ""
    plain = {name: value for name, value in step.env.items() if not isinstance(value, Secret)}
    request: dict[str, Any] = {
        "argv": reading_secrets(step.argv) if step.secrets else list(step.argv),
        "stdin": takes_input,
        "user": user,
        "env": {**plain, MARKER: context.run},
        "workdir": None if step.workdir is None else clean_path(step.workdir),
    }
    async with guarded(context.host, context.run, engine.path, engine.version) as guard:
        made = shaped(await engine.ask(lambda calls: calls.exec_create(container, **request)), Made, engine.host)
        await guard.watches(entering(container, user, killing(context.run)))
        return await _follow(made.id, container, user, engine, guard, first if takes_input else None, context)


async def _follow(
    made: str, container: str, user: str, engine: Engine, guard: Guard, first: bytes | None, context: Context
) -> Outcome:
    attached = await Hijacked.open(engine, f"/exec/{made}/start", {"Detach": False, "Tty": False})
    over = asyncio.ensure_future(_over(engine, container))
    try:
        if not await followed_to(over, attached, first, context):
            text = f"container {container[:12]} ended with the program in it"
            raise StepFailed(text, host=engine.host, hint="did it use up what it may have?")
        if context.recorder.failure is None:
            state = await _ended(made, engine, None)
            guard.settled = True
            return Outcome(exit=ProcessExit(state.exit_code, None), changed=True)
    except BaseException:  # a cancellation as well: the program goes with its step
        await to_the_end(_end(made, container, user, engine, context))
        guard.settled = True
        raise
    finally:
        attached.close()
        await let_go(over)
    await to_the_end(_end(made, container, user, engine, context))
    guard.settled = True
    return Outcome(changed=True)


async def _over(engine: Engine, container: str) -> None:
    """Return once the container has ended, or is gone; never where the engine doesn't say so."""
    await asyncio.sleep(OUTLIVED_S)
    try:
        ended = await Exit.of(engine, container, "not-running")
        try:
            await ended.code()
        finally:
            ended.close()
    except OpsError as error:
        if not isinstance(error, EngineRefused) or error.status != 404:
            await asyncio.Event().wait()


async def _ended(made: str, engine: Engine, within_s: float | None) -> Running:
    """Return the state of a program once it has ended (its output may end before it does), or as it is when late."""
    begun = time.monotonic()
    pause = LOOK_S
    while True:
        state = shaped(await engine.ask(lambda calls: calls.exec_inspect(made)), Running, engine.host)
        if not state.running or (within_s is not None and time.monotonic() - begun > within_s):
            return state
        await asyncio.sleep(pause)
        pause = min(2 * pause, MAX_LOOK_S)


async def _end(made: str, container: str, user: str, engine: Engine, context: Context) -> None:
    """End everything that carries this run's mark; raises StepFailed when something may live on."""
    why = "is there a sh and a grep in it?"
    begun = time.monotonic()
    while time.monotonic() - begun < END_S:
        try:
            await engine.ask(lambda calls: _enter(calls, container, killing(context.run), user))
        except EngineRefused as error:
            if error.status in (404, 409):
                return  # the container is gone, or doesn't run any more
            why = error.message
        except OpsError as error:
            why = error.message
        if not (await _ended(made, engine, LOOK_S)).running:
            return
    text = f"what was run in {container[:12]} may still run: {why}"
    raise StepFailed(text, host=engine.host, hint="remove the container")


def _enter(calls: Calls, container: str, words: list[str], user: str) -> None:
    calls.exec_finish(calls.exec_create(container, words, user=user)["Id"])


def killing(run: str) -> list[str]:
    """Return the words that end what carries a run's mark."""
    body = f"for p in /proc/[0-9]*; do grep -q {MARKER}={run} $p/environ 2>/dev/null && kill -9 ${{p#/proc/}}; done"
    return ["/bin/sh", "-c", f"{body}; true"]
