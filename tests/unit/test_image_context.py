"""The files of an image's context, read by the host's own tar: however a build ends, the tar ends with it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from opsexec import CapabilitySet
from opsexec.handlers.context import Context
from opsexec.handlers.images import _context
from opsexec.hosts.port import ProcessExit, ProcessSpec
from opsexec.recorder import Recorder
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


class FakeTarHost:
    """A host whose tar says some blocks and then ends, or goes on for ever."""

    name = "web1"

    def __init__(self, blocks: int, *, ends: bool) -> None:
        self.blocks = blocks
        self.ends = ends
        self.begun = self.ended = False

    async def run_process(self, spec: ProcessSpec, recorder: Recorder, stdin: object = None) -> ProcessExit:
        """Say the blocks."""
        self.begun = True
        try:
            for number in range(self.blocks):
                recorder.feed(0, b"%d" % (number % 10) * 100_000)
                await asyncio.sleep(0)
            if not self.ends:
                await asyncio.Event().wait()
            return ProcessExit(exit_code=0, signal=None)
        finally:
            self.ended = True


def context_of(host: FakeTarHost) -> tuple[Any, Context]:
    context = Context(
        run="r", host=cast(Any, host), capabilities=CapabilitySet.everything(), recorder=Recorder(cast(Any, None))
    )
    return SimpleNamespace(on_cut=[], host=host.name), context


@pytest.mark.parametrize("blocks", [0, 3, 60])
async def test_what_is_given_up_leaves_neither_the_tar_nor_a_task(blocks: int) -> None:
    before = asyncio.all_tasks()
    host = FakeTarHost(blocks, ends=False)
    engine, context = context_of(host)
    async with _context("/srv/app", 1 << 30, engine, context) as given:
        assert given is not None
        await eventually(lambda: host.begun, within_s=10, what="the tar begins")
        for _ in range(200):  # as far as it gets while nobody reads
            await asyncio.sleep(0)
    assert host.ended
    await eventually(lambda: asyncio.all_tasks() == before, within_s=10, what="every task ends")


async def test_all_that_the_tar_said_is_read_and_nothing_is_left() -> None:
    before = asyncio.all_tasks()
    host = FakeTarHost(60, ends=True)
    engine, context = context_of(host)
    async with _context("/srv/app", 1 << 30, engine, context) as given:
        assert given is not None
        size = 0
        while data := await asyncio.to_thread(given.read, 1 << 20):
            size += len(data)
        assert size == 6_000_000
    await eventually(lambda: asyncio.all_tasks() == before, within_s=10, what="every task ends")
