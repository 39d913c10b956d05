"""Containers that live on after their step: made, started, signalled, stopped, removed."""

from __future__ import annotations

from opsexec.engine.answers import Made, shaped
from opsexec.engine.client import CALL_S, Engine, EngineRefused
from opsexec.errors import MadeDifferently, StepFailed
from opsexec.handlers.container_config import CONFIG_LABEL, JSON_FILE, config_of, digest_of
from opsexec.handlers.container_found import container_of, existing
from opsexec.handlers.container_run import attach_to_networks, looked_at, remove_by_id, run_by, sources_of, to_the_end
from opsexec.handlers.context import Context, Outcome
from opsexec.steps.containers import (
    ContainerCreate,
    ContainerRemove,
    ContainerSignal,
    ContainerStart,
    ContainerStop,
)


async def create(step: ContainerCreate, engine: Engine, context: Context) -> Outcome:
    """Make a container; one that was made from the same is left as it is."""
    sources = await sources_of(step, engine, context)
    image = await looked_at(step, engine)
    step = await run_by(step, engine)
    config = config_of(step, sources, log=JSON_FILE, own_labels={})
    further = [[each.network, each.ipv4, list(each.aliases)] for each in step.networks[1:]]
    digest = digest_of(config, further, image.id)
    there = await container_of(engine, step.name, step.labels)
    if there is not None:
        if (there.config.labels or {}).get(CONFIG_LABEL) == digest:
            return Outcome(value={"id": there.id})
        hint = "remove it first: a container can't be changed"
        raise MadeDifferently(f"container {step.name} was made from something else", host=engine.host, hint=hint)
    if context.check:
        return Outcome(changed=True, diff=f"make container {step.name}\n" if context.diff else None)
    config["Labels"][CONFIG_LABEL] = digest
    made = await to_the_end(engine.ask(lambda calls: calls.create_container(config, step.name)))
    container = shaped(made, Made, engine.host).id
    try:
        await attach_to_networks(step, container, engine)
    except BaseException:  # a cancellation as well: half a container isn't left
        await to_the_end(remove_by_id(engine, container))
        raise
    diff = f"make container {step.name}\n" if context.diff else None
    return Outcome(changed=True, diff=diff, value={"id": container})


async def start(step: ContainerStart, engine: Engine, context: Context) -> Outcome:
    """Start a container that doesn't run."""
    there = await existing(engine, step.name, step.labels)
    if there.state.running:
        return Outcome(value={"id": there.id})
    if not context.check:
        await engine.ask(lambda calls: calls.start(there.id))
    return Outcome(changed=True, value={"id": there.id})


async def signal(step: ContainerStop | ContainerSignal, engine: Engine, context: Context) -> Outcome:
    """Stop or signal a container; to stop what isn't there is no error."""
    stopping = isinstance(step, ContainerStop)
    there = await container_of(engine, step.name, step.labels)
    if there is None or not there.state.running:
        if stopping:
            return Outcome()
        raise StepFailed(f"container {step.name} isn't running", host=engine.host)
    if context.check:
        return Outcome(changed=True)
    try:
        if isinstance(step, ContainerStop):
            grace = step.grace_s
            await engine.ask_package(lambda client: client.stop(there.id, timeout=grace), CALL_S + grace)
        else:
            number = step.signal
            await engine.ask_package(lambda client: client.kill(there.id, number))
    except EngineRefused as error:
        if not stopping or error.status != 404:
            raise
    return Outcome(changed=True)


async def remove(step: ContainerRemove, engine: Engine, context: Context) -> Outcome:
    """End and remove a container; one that isn't there is no error."""
    there = await container_of(engine, step.name, step.labels)
    if there is None:
        return Outcome(value={"name": step.name, "removed": False})
    if not context.check:
        await remove_by_id(engine, there.id)
    diff = f"remove container {step.name}\n" if context.diff else None
    return Outcome(changed=True, diff=diff, value={"name": step.name, "removed": True})
