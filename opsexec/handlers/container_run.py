"""ContainerRun: a container made, followed to its end, and removed, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from opsexec.engine.answers import Container, Image, Info, Made, shaped
from opsexec.engine.calls import Calls
from opsexec.engine.client import Engine, EngineRefused
from opsexec.engine.guard import Guard, guarded, removing
from opsexec.engine.stream import Exit, Hijacked
from opsexec.errors import LimitExceeded, OpsError, StepFailed
from opsexec.handlers.bind_sources import bind_sources
from opsexec.handlers.container_config import (
    RUN_LABEL,
    config_of,
    reading_secrets,
    require_no_engine,
    secrets_header,
)
from opsexec.handlers.container_found import image_of, require_networks
from opsexec.handlers.container_syscalls import taken_by
from opsexec.handlers.context import Context, Outcome
from opsexec.hosts.port import ProcessExit
from opsexec.secret import reveal
from opsexec.steps.container_shape import ContainerShape, Syscalls
from opsexec.steps.containers import ContainerRun
from opsexec.steps.text import as_bytes

T = TypeVar("T")
Shape = TypeVar("Shape", bound=ContainerShape)
REMOVE_S = 60.0
SILENCE_S = 5.0
"""Seconds without output after which a program whose container has ended has no more of it: an engine may leave its
connection open for ever (Docker 20.10, where a gVisor kernel died with all that ran on it)."""


async def run_container(step: ContainerRun, engine: Engine, context: Context) -> Outcome:
    """Run a container to its end. In check mode it is looked at what it needs, and nothing is made."""
    sources = await sources_of(step, engine, context)
    image = await looked_at(step, engine)
    step = await run_by(step, engine)
    if context.check:
        return Outcome(changed=True, skipped="check mode: containers are not run")
    first = secrets_header(step.secrets) if step.secrets else b""
    first += b"" if step.stdin is None else as_bytes(reveal(step.stdin))
    takes_input = bool(first) or step.stdin is not None or context.stdin is not None
    argv = reading_secrets(step.argv or own_words(image, step, context)) if step.secrets else ()
    own_labels = {RUN_LABEL: context.run}
    config = config_of(step, sources, argv=argv, stdin=takes_input, own_labels=own_labels)
    async with (
        guarded(context.host, context.run, engine.path, engine.version) as guard,
        _made(step, config, engine, guard) as container,
    ):
        await guard.watches(removing(container))
        return await _follow(container, engine, first if takes_input else None, context)


@asynccontextmanager
async def _made(step: ContainerRun, config: dict[str, Any], engine: Engine, guard: Guard) -> AsyncIterator[str]:
    """Make the container, on all its networks; it is removed at the end."""
    made = asyncio.ensure_future(engine.ask(lambda calls: calls.create_container(config, step.name)))
    try:
        container = shaped(await asyncio.shield(made), Made, engine.host).id
    except asyncio.CancelledError:
        await to_the_end(_remove_late(made, engine))
        raise
    try:
        await attach_to_networks(step, container, engine)
        yield container
    finally:
        await to_the_end(remove_by_id(engine, container))
        guard.settled = True


async def _remove_late(made: asyncio.Future[Any], engine: Engine) -> None:
    """Remove a container that came about while its maker was cancelled already."""
    try:
        container = shaped(await made, Made, engine.host).id
    except OpsError:
        return
    await remove_by_id(engine, container)


async def _follow(container: str, engine: Engine, first: bytes | None, context: Context) -> Outcome:
    target = f"/containers/{container}/attach?stream=1&stdout=1&stderr=1{'' if first is None else '&stdin=1'}"
    attached = await Hijacked.open(engine, target)
    ended = await Exit.of(engine, container)
    over = asyncio.ensure_future(ended.code())
    try:
        await engine.ask(lambda calls: calls.start(container))
        await followed_to(over, attached, first, context)
        if context.recorder.failure is not None:
            return Outcome(changed=True)
        code = await over
        there = shaped(await engine.ask(lambda calls: calls.inspect_container(container)), Container, engine.host)
    finally:
        attached.close()
        ended.close()
        await let_go(over)
    value = {"id": container, "oom_killed": there.state.oom_killed}
    return Outcome(exit=ProcessExit(code, None), changed=True, value=value)


async def followed_to(over: asyncio.Future[Any], attached: Hijacked, first: bytes | None, context: Context) -> bool:
    """As `followed`; False where `over`, the end of the container, came, and no end of the output within SILENCE_S."""
    following = asyncio.ensure_future(followed(attached, first, context))
    try:
        await asyncio.wait({following, over}, return_when=asyncio.FIRST_COMPLETED)
        silent_s = 0.0
        while not following.done() and silent_s < SILENCE_S:
            await asyncio.wait({following}, timeout=SILENCE_S / 5)
            silent_s = min(silent_s + SILENCE_S / 5, attached.silent_s)
        if following.done():
            following.result()
            return True
        return False
    finally:
        await let_go(following)


async def let_go(work: asyncio.Future[Any]) -> None:
    """Cancel what nobody waits for any more, and see it end, however it does."""
    work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.exception()


async def followed(attached: Hijacked, first: bytes | None, context: Context) -> None:
    """Carry input and output until the output ends, or nobody takes it; raises LimitExceeded, what the input raised."""
    broken = asyncio.Event()
    context.recorder.on_failure = broken.set
    output = asyncio.ensure_future(attached.follow(context.recorder))
    unheard = asyncio.ensure_future(broken.wait())
    feeding = None if first is None else asyncio.ensure_future(attached.feed(first, context.stdin))
    waiting = {output, unheard} | ({feeding} if feeding is not None else set())
    try:
        while not output.done() and not unheard.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if feeding in done and feeding is not None:
                feeding.result()
        if output.done():
            output.result()
    finally:
        context.recorder.on_failure = None
        for task in waiting:
            task.cancel()
            await asyncio.wait([task])
    if context.recorder.over_limit:
        text = f"output is over the limit of {context.recorder.limit_bytes} bytes"
        raise LimitExceeded(text, host=context.host.name, hint="what was run was ended")


async def sources_of(step: ContainerShape, engine: Engine, context: Context) -> dict[str, str]:
    """Return where the step's bind mounts lead; raises CapabilityDenied, and BadStep for places that own the host."""
    sources = await bind_sources(step.read_only, step.writable, None, context)
    require_no_engine({path: path for path in (*step.read_only.values(), *step.writable.values())}, engine.path,
                      context.host.name)  # fmt: skip
    require_no_engine(sources, engine.path, context.host.name)
    return sources


async def looked_at(step: ContainerShape, engine: Engine) -> Image:
    """Return the image; raises StepFailed where there is none, or a network isn't there."""
    await require_networks(engine, (each.network for each in step.networks))
    image = await image_of(engine, step.image)
    if image is None:
        hint = f"no step pulls: `docker pull {step.image}` on that host, or build or import it first"
        raise StepFailed(f"there is no image {step.image}", host=engine.host, hint=hint)
    return image


async def run_by(step: Shape, engine: Engine) -> Shape:
    """Return the step with what it gets here: the engine's own for a runtime and a filter that it can do without."""
    if (step.runtime is None or not step.runtime_optional) and step.syscalls == "engine":
        return step
    info = shaped(await engine.ask(lambda calls: calls.info()), Info, engine.host)
    runtime = step.runtime if not step.runtime_optional or step.runtime in (info.runtimes or {}) else None
    syscalls: Syscalls = step.syscalls if taken_by(info) else "engine"
    return msgspec.structs.replace(step, runtime=runtime, syscalls=syscalls)


def own_words(image: Image, step: ContainerShape, context: Context) -> list[str]:
    """Return what an image runs by itself."""
    words = image.config.argv if image.config is not None else []
    if not words:
        raise StepFailed(f"the image {step.image} says nothing to run", host=context.host.name, hint="give argv")
    return words


async def attach_to_networks(step: ContainerShape, container: str, engine: Engine) -> None:
    """Attach a container that isn't started yet to its further networks: the API takes one when it is made."""

    def attach(calls: Calls) -> None:
        for each in step.networks[1:]:
            endpoint: dict[str, Any] = {"Aliases": list(each.aliases)} if each.aliases else {}
            if each.ipv4:
                endpoint["IPAMConfig"] = {"IPv4Address": each.ipv4}
            calls.connect_to_network(container, each.network, endpoint)

    if step.networks[1:]:
        await engine.ask(attach)


async def remove_by_id(engine: Engine, container: str) -> None:
    """End a container and remove it with its volumes; one that is gone, or about to be, is no error."""
    try:
        await engine.ask(lambda calls: calls.remove_container(container), REMOVE_S)
    except EngineRefused as error:
        if error.status != 404 and "already in progress" not in error.message:
            raise


async def to_the_end(work: Awaitable[T]) -> T:
    """Do it also when the caller is cancelled meanwhile, and then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
