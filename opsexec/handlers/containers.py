"""Container steps: each is done by the module of its kind, over the host's container engine."""

from __future__ import annotations

from opsexec.engine.client import Engine, engine_of
from opsexec.errors import BadStep
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.limits import within
from opsexec.steps.base import Step
from opsexec.steps.container_copies import ContainerCopyIn, ContainerCopyOut
from opsexec.steps.containers import (
    ContainerCreate,
    ContainerExec,
    ContainerInspect,
    ContainerList,
    ContainerLogs,
    ContainerRemove,
    ContainerRun,
    ContainerSignal,
    ContainerStart,
    ContainerStop,
)
from opsexec.steps.images import ImageBuild, ImageImport, ImageInspect, ImageRemove
from opsexec.steps.networks import NetworkCreate, NetworkRemove


async def handle(step: Step, context: Context) -> Outcome:
    """Do one step of the family, within its deadline."""

    async def work() -> Outcome:
        async with engine_of(context.host) as engine:
            return await _do(step, engine, context)

    return await within(_what(step), work(), context)


def _what(step: Step) -> str:
    name = getattr(step, "name", None) or getattr(step, "names", "")
    return f"{step.__struct_config__.tag} {name}"


async def _do(step: Step, engine: Engine, context: Context) -> Outcome:
    from opsexec.handlers import (
        container_copies,
        container_exec,
        container_life,
        container_reads,
        container_run,
        images,
        networks,
    )

    match step:
        case ContainerRun():
            return await container_run.run_container(step, engine, context)
        case ContainerExec():
            return await container_exec.run_in_container(step, engine, context)
        case ContainerCreate():
            return await container_life.create(step, engine, context)
        case ContainerStart():
            return await container_life.start(step, engine, context)
        case ContainerStop() | ContainerSignal():
            return await container_life.signal(step, engine, context)
        case ContainerRemove():
            return await container_life.remove(step, engine, context)
        case ContainerCopyIn():
            return await container_copies.copy_in(step, engine, context)
        case ContainerCopyOut():
            return await container_copies.copy_out(step, engine, context)
        case ContainerInspect():
            return await container_reads.inspect(step, engine, context)
        case ContainerLogs():
            return await container_reads.logs(step, engine, context)
        case ContainerList():
            return await container_reads.find(step, engine, context)
        case ImageBuild():
            return await images.build(step, engine, context)
        case ImageImport():
            return await images.make(step, engine, context)
        case ImageInspect():
            return await images.inspect(step, engine, context)
        case ImageRemove():
            return await images.remove(step, engine, context)
        case NetworkCreate():
            return await networks.create(step, engine, context)
        case NetworkRemove():
            return await networks.remove(step, engine, context)
    raise BadStep(f"{type(step).__name__} is no container step")
