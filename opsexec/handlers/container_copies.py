"""Files into and out of a container, as checked tar streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opsexec.capability import clean_path
from opsexec.engine.client import Engine, EngineRefused
from opsexec.engine.crossing import Given, Output
from opsexec.engine.tar_check import END, TarCheck
from opsexec.errors import LimitExceeded, OpsError, PathNotFound
from opsexec.handlers.container_found import existing
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.limits import require_within_limit
from opsexec.secret import reveal
from opsexec.steps.container_copies import ContainerCopyIn, ContainerCopyOut, GivenFile
from opsexec.steps.text import as_bytes

if TYPE_CHECKING:
    import docker

TAR_OVERHEAD = 4096
"""Bytes that an entry may take in a tar stream beside its content."""


async def copy_in(step: ContainerCopyIn, engine: Engine, context: Context) -> Outcome:
    """Put files into a container."""
    there = await existing(engine, step.name, step.labels)
    if context.check:
        return Outcome(changed=True, skipped="check mode: nothing is copied")
    checker = TarCheck(step.max_bytes, step.max_entries, uid=step.uid, gid=step.gid)
    room = step.max_bytes + step.max_entries * TAR_OVERHEAD
    async with given_stream(context.stdin, room, engine) as source:

        def put(client: docker.APIClient) -> None:
            client.put_archive(there.id, clean_path(step.dest), tar_of(step.files, source, checker))

        try:
            await engine.carry(put)
        except EngineRefused as error:
            if "read-only" in error.message:
                error.hint = "its root is read-only: copy into one of its volumes"
            raise
    return Outcome(changed=True, value={"entries": checker.entries, "bytes": checker.size})


async def copy_out(step: ContainerCopyOut, engine: Engine, context: Context) -> Outcome:
    """Give a tree of a container to the sink, as a tar stream."""
    there = await existing(engine, step.name, step.labels)
    checker = TarCheck(step.max_bytes, step.max_entries)
    output = Output(context.recorder, lambda: require_within_limit(context))
    engine.on_cut.append(output.stop)

    def get(client: docker.APIClient) -> None:
        blocks, _ = client.get_archive(there.id, clean_path(step.path), chunk_size=256 << 10)
        for data in checker.passed(Blocks(blocks)):
            output.give(0, data)
        output.give(0, END)

    with output.taken():
        try:
            await engine.carry(get)
        except EngineRefused as error:
            if error.status == 404:
                raise PathNotFound(f"there is no {step.path} in {step.name}", host=engine.host) from error
            raise
    return Outcome(value={"entries": checker.entries, "bytes": checker.size, "left_out": checker.left_out})


class Blocks:
    """An iterator of blocks, read like a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes; none at the end."""
        while not self._rest:
            try:
                self._rest = next(self._blocks)
            except StopIteration:
                return b""
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


@asynccontextmanager
async def given_stream(
    stream: AsyncIterator[bytes] | None, max_bytes: int, engine: Engine
) -> AsyncIterator[Given | None]:
    """Lend an input to a thread while this lasts; raises what the input raised."""
    if stream is None:
        yield None
        return

    def too_much() -> OpsError:
        return LimitExceeded(f"the input is over {max_bytes} bytes", hint="raise max_bytes")

    given = Given(stream, max_bytes, too_much)
    engine.on_cut.append(given.stop)
    pumping = asyncio.ensure_future(given.pump())
    try:
        yield given
    except OpsError:
        if pumping.done() and not pumping.cancelled() and (error := pumping.exception()) is not None:
            raise error from None  # the input broke off: that is why
        raise
    finally:
        pumping.cancel()
        await asyncio.wait([pumping])


def tar_of(files: tuple[GivenFile, ...], source: Given | None, checker: TarCheck) -> Iterator[bytes]:
    """Yield a whole tar: the files of a step, then what is streamed."""
    for file in files:
        yield from checker.given(file.path, as_bytes(reveal(file.content)), int(file.mode, 8))
    if source is not None:
        yield from checker.passed(source)
    yield END
