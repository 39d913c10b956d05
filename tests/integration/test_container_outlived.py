"""A container that has ended while its engine keeps the output of what ran in it open: nobody waits for ever.

Docker 20.10 does so at times where a gVisor kernel dies with all that ran on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import opsexec.handlers.container_run as running
from opsexec.errors import StepFailed
from opsexec.steps import ContainerExec, ContainerRun
from tests.parts.container_engine import OURS, TINY, Ways
from tests.parts.engine_door import EngineDoor

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
END_S = 60.0
EXEC = b"/start HTTP/1.1\r\nHost: docker\r\nUpgrade"
HOLD = ("/bin/sh", "-c", "echo up; sleep 600")


class Kept:
    """A sink that keeps what is said, and tells when something was."""

    def __init__(self) -> None:
        self.said = b""
        self.event = asyncio.Event()

    async def write(self, stream: str, data: bytes) -> None:
        self.said += data
        self.event.set()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SILENCE_S", 0.5)


@asynccontextmanager
async def held_open(ways: Ways, path: Path, words: bytes, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The engine, but for the end of connections that begin with a request of these words."""
    door = EngineDoor(path, ways.engine.socket, never_ends=words)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{door.path}")
    await door.open()
    try:
        yield
    finally:
        await door.shut()


async def test_a_program_whose_container_is_gone_is_told_of(ways, tmp_path, monkeypatch):
    async with held_open(ways, tmp_path / "s", EXEC, monkeypatch), ways.target("local").connect() as ex:
        up, inside = Kept(), Kept()
        held = asyncio.create_task(ex.run_streaming(ContainerRun(name="under", image=TINY, labels=OURS, argv=HOLD), up))
        await asyncio.wait_for(up.event.wait(), END_S)
        program = asyncio.create_task(ex.run(ContainerExec(name="under", labels=OURS, argv=HOLD), inside))
        await asyncio.wait_for(inside.event.wait(), END_S)
        await asyncio.sleep(3 * running.SILENCE_S)
        assert not program.done(), "silence alone ends nothing"
        ways.engine.docker("rm", "-f", "under")
        with pytest.raises(StepFailed, match="ended with the program in it"):
            await asyncio.wait_for(program, END_S)
        await asyncio.wait([held], timeout=END_S)
        assert isinstance(held.exception(), StepFailed), "it was removed under its own step, too"


async def test_a_container_s_own_end_is_enough(ways, tmp_path, monkeypatch):
    async with held_open(ways, tmp_path / "s", b"/attach?", monkeypatch), ways.target("local").connect() as ex:
        kept = Kept()
        argv = ("/bin/sh", "-c", "echo said; exit 3")
        step = ContainerRun(name="ended", image=TINY, labels=OURS, argv=argv)
        out = await asyncio.wait_for(ex.run_streaming(step, kept), END_S)
        assert (out.exit_code, kept.said) == (3, b"said\n")


async def test_a_slow_sink_gets_all_of_what_was_said_before_the_end(ways, tmp_path, monkeypatch):
    """What hasn't been taken yet is no silence."""

    class Slow(Kept):
        async def write(self, stream: str, data: bytes) -> None:
            await asyncio.sleep(2 * running.SILENCE_S)
            await super().write(stream, data)

    async with held_open(ways, tmp_path / "s", b"/attach?", monkeypatch), ways.target("local").connect() as ex:
        kept = Slow()
        argv = ("/bin/sh", "-c", "echo one; sleep 0.3; echo two; sleep 0.3; echo three")
        step = ContainerRun(name="slow", image=TINY, labels=OURS, argv=argv)
        out = await asyncio.wait_for(ex.run_streaming(step, kept), END_S)
        assert (out.exit_code, kept.said) == (0, b"one\ntwo\nthree\n")
