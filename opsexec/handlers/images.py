"""Images: built, imported, looked at, removed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from opsexec.capability import clean_path, program_candidates
from opsexec.engine.answers import Config, Image, shaped
from opsexec.engine.client import Engine, EngineRefused
from opsexec.engine.crossing import Given, Output
from opsexec.engine.tar_check import TarCheck
from opsexec.errors import BadStep, ProtocolError, StepFailed
from opsexec.handlers.bind_sources import bind_sources
from opsexec.handlers.container_config import IMAGE_LABEL, digest_of
from opsexec.handlers.container_copies import TAR_OVERHEAD, given_stream, tar_of
from opsexec.handlers.container_found import image_of, require_labels, require_networks
from opsexec.handlers.container_run import to_the_end
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.limits import require_within_limit
from opsexec.hosts.port import ProcessSpec
from opsexec.recorder import Recorder
from opsexec.steps.container_copies import GivenFile
from opsexec.steps.dockerfile import images_of
from opsexec.steps.images import ImageBuild, ImageImport, ImageInspect, ImageRemove, ImageStep

if TYPE_CHECKING:
    import docker

    from opsexec.executor import Stream

DOCKERFILE = ".opsexec.Dockerfile"
"""How the step's Dockerfile is called in what the engine gets: no file of a context is called so."""
BUILD_MEMORY = 4 << 30


async def build(step: ImageBuild, engine: Engine, context: Context) -> Outcome:
    """Build an image; one of that name that was built of the same is left as it is."""
    bases = [await _base(engine, name, step) for name in step.bases()]
    if step.network is not None:
        await require_networks(engine, [step.network])
    there = await _image(step, step.labels, engine)
    sources = await bind_sources({"context": step.context}, {}, None, context) if step.context else {}
    files = [[file.path, file.content, file.mode] for file in step.files]
    connected = step.network is not None  # which network it is tells nothing of the image: another launch has another
    parts = [step.dockerfile, files, dict(step.build_args), dict(step.labels), connected, step.target]
    digest = digest_of(parts, bases)
    same = there is not None and there.labels.get(IMAGE_LABEL) == digest
    if there is not None and same and step.context is None and not step.again:
        return Outcome(value={"id": there.id})
    if context.check:
        return Outcome(changed=True, diff=f"build image {step.name}\n" if context.diff else None)
    checker = TarCheck(step.max_bytes, step.max_entries)
    given = (GivenFile(DOCKERFILE, step.dockerfile), *step.files)
    output = Output(context.recorder, lambda: require_within_limit(context))
    engine.on_cut.append(output.stop)
    labels = {**step.labels, IMAGE_LABEL: digest}
    room = step.max_bytes + step.max_entries * TAR_OVERHEAD
    with output.taken():
        async with _context(sources.get(step.context or ""), room, engine, context) as source:
            await engine.carry(
                lambda client: _say(
                    client.build(
                        fileobj=tar_of(given, source, checker),
                        custom_context=True,
                        dockerfile=DOCKERFILE,
                        tag=step.name,
                        labels=labels,
                        buildargs=dict(step.build_args),
                        network_mode=step.network or "none",
                        target=step.target or "",
                        nocache=step.again,
                        pull=False,
                        rm=True,
                        forcerm=True,
                        container_limits={"memory": BUILD_MEMORY, "memswap": BUILD_MEMORY},
                        use_config_proxy=False,
                        decode=True,
                    ),
                    output,
                    engine,
                ),
            )
    made = await _made(step, engine)
    changed = there is None or there.id != made.id
    return Outcome(changed=changed, diff=f"build image {step.name}\n" if context.diff and changed else None,
                   value={"id": made.id})  # fmt: skip


def _say(lines: Iterator[Any], output: Output, engine: Engine) -> None:
    """Give what a build says to the sink; raises StepFailed with its error."""
    for line in lines:
        if not isinstance(line, dict):
            raise ProtocolError("the container engine's account of a build is none", host=engine.host)
        if "error" in line:
            said = "".join(letter if letter.isprintable() else " " for letter in str(line["error"]))[:400]
            raise StepFailed(f"the image can't be built: {said}", host=engine.host)
        if isinstance(line.get("stream"), str):
            output.give(0, line["stream"].encode("utf-8", "surrogatepass"))


async def _base(engine: Engine, name: str, step: ImageBuild) -> str:
    """Return a base image's id; raises StepFailed where it isn't there: nothing is pulled."""
    there = await image_of(engine, name)
    if there is None:
        hint = f"no step pulls: `docker pull {name}` on that host, or build or import it first"
        raise StepFailed(f"there is no image {name} to build on", host=engine.host, hint=hint)
    triggers = (there.config and there.config.on_build) or []
    try:
        more = set(images_of("\n".join(["FROM scratch", *triggers]), {})) - set(step.bases())
    except BadStep as error:
        raise StepFailed(f"what {name} does to a build can't be read: {error.message}", host=engine.host) from error
    if more:
        raise StepFailed(f"{name} copies from {min(more)} into what is built on it", host=engine.host)
    return there.id


@asynccontextmanager
async def _context(source: str | None, max_bytes: int, engine: Engine, context: Context) -> AsyncIterator[Given | None]:
    """Lend the files of a directory on the host as a tar stream, of its own tar's making."""
    if source is None:
        yield None
        return
    lines: asyncio.Queue[bytes] = asyncio.Queue(4)

    class Sink:
        async def write(self, stream: Stream, data: bytes) -> None:
            if stream == "stdout":
                await lines.put(data)

    recorder = Recorder(Sink())
    programs = program_candidates("tar")
    argv = ("tar", "--create", "--file=-", "--one-file-system", "--sort=name", f"--directory={clean_path(source)}", ".")
    spec = ProcessSpec(run=context.run, programs=programs, admitted=programs, argv=argv, env={"LC_ALL": "C"})

    async def read() -> None:
        ended = await context.host.run_process(spec, recorder)
        await recorder.finish()
        if ended.exit_code != 0:
            said = recorder.tail(1).decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
            raise StepFailed(f"the context can't be read: {said or ended.signal}", host=context.host.name)
        await lines.put(b"")

    async def stream() -> AsyncGenerator[bytes, None]:
        reading = asyncio.ensure_future(read())
        line = asyncio.ensure_future(lines.get())
        try:
            while True:
                await asyncio.wait([reading, line], return_when=asyncio.FIRST_COMPLETED)
                if not line.done():
                    reading.result()  # it has said all by then, or raises why not
                if not (data := await line):
                    return
                line = asyncio.ensure_future(lines.get())
                yield data
        finally:
            recorder.abandon()
            reading.cancel()
            line.cancel()
            await asyncio.wait([reading, line])

    # Closed here: a pump that is given up while it waits for room leaves the stream, and the tar, as they are.
    async with aclosing(stream()) as read_on, given_stream(read_on, max_bytes, engine) as given:
        yield given


async def make(step: ImageImport, engine: Engine, context: Context) -> Outcome:
    """Import a root file system that is streamed in."""
    there = await _image(step, step.labels, engine)
    if context.check:
        return Outcome(changed=True, skipped="check mode: nothing is imported")
    if context.stdin is None:
        raise StepFailed("there is no input to make an image of", host=engine.host, hint="stream a tar to the step")
    repository, tag = _parted(step.name)
    changes = [f"LABEL {json.dumps(key)}={_quoted(value)}" for key, value in step.labels.items()]
    async with given_stream(context.stdin, step.max_bytes, engine) as source:
        assert source is not None

        def blocks() -> Iterator[bytes]:
            while data := source.read(1 << 20):
                yield data

        def load(client: docker.APIClient) -> None:
            said = client.import_image_from_stream(blocks(), repository=repository, tag=tag, changes=changes)
            if '"error"' in said:
                raise StepFailed(f"the image can't be imported: {said.strip()[-300:]}", host=engine.host)

        await engine.carry(load)
    made = await _made(step, engine)
    return Outcome(changed=there is None or there.id != made.id, value={"id": made.id})


def _parted(name: str) -> tuple[str, str]:
    """Return an image's repository and tag."""
    head, _, last = name.rpartition("/")
    repository, _, tag = last.partition(":")
    return f"{head}/{repository}" if head else repository, tag or "latest"


def _quoted(value: str) -> str:
    """Return a label's value as a Dockerfile has it: nothing in it is a variable."""
    return json.dumps(value, ensure_ascii=False).replace("$", "\\$")


async def inspect(step: ImageInspect, engine: Engine, context: Context) -> Outcome:
    """Look at one image."""
    there = await image_of(engine, step.name)
    if there is None:
        return Outcome(value={"exists": False})
    config = there.config or Config()
    value = {
        "exists": True,
        "id": there.id,
        "labels": there.labels,
        "size": there.size,
        "created": there.created,
        "digests": there.repo_digests or [],
        "env_names": config.env_names,
        "user": config.user or "",
        "argv": config.argv,
    }
    return Outcome(value=value)


async def remove(step: ImageRemove, engine: Engine, context: Context) -> Outcome:
    """Remove an image's name, and the image with its last one."""
    there = await _image(step, step.labels, engine)
    if there is None:
        return Outcome(value={"name": step.name, "removed": False})
    if not context.check:
        try:
            await to_the_end(engine.ask_package(lambda client: client.remove_image(step.name)))
        except EngineRefused as error:
            if error.status != 404:
                raise
    return Outcome(changed=True, value={"name": step.name, "removed": True})


async def _image(step: ImageStep, labels: Mapping[str, str], engine: Engine) -> Image | None:
    there = await image_of(engine, step.name)
    if there is not None:
        require_labels(there.labels, labels, f"image {step.name}", engine)
    return there


async def _made(step: ImageStep, engine: Engine) -> Image:
    return shaped(await engine.ask(lambda calls: calls.inspect_image(step.name)), Image, engine.host)
