"""The launcher's own door: what a program said arrives whole, whatever its caller is still sending."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bottle import attended
from bottle.control import Asked, Beside, Runner, served
from bottle.control_wire import connect, connect_to, frame, read_frame
from bottle.errors import NoSuchBottle
from bottle.state import Metadata, State
from opsexec.errors import OpsError, UsageError
from opsexec.executor import LogSink, RunOutput

pytestmark = pytest.mark.anyio
SAID = 200_000
"""Bytes: more than a socket holds, and less than the door waits for before it ends."""


async def says(asked: Asked, sink: LogSink, stdin: AsyncIterator[bytes]) -> RunOutput:
    """A program that speaks, reads nothing, and ends."""
    await sink.write("stdout", b"x" * SAID)
    return RunOutput(run="", host="", exit_code=7)


async def refuses(asked: Asked, sink: LogSink, stdin: AsyncIterator[bytes]) -> RunOutput:
    """A program that can't be run."""
    raise UsageError("no such program", hint="name another")


@pytest.mark.parametrize(("run", "last"), [(says, {"exit_code": 7, "signal": None}), (refuses, "no such program")])
async def test_what_was_said_arrives_also_at_a_caller_who_is_still_sending(
    tmp_path: Path, run: Runner, last: object
) -> None:
    over = asyncio.Event()

    async def noted(asked: Asked, sink: LogSink, stdin: AsyncIterator[bytes]) -> RunOutput:
        try:
            return await run(asked, sink, stdin)
        finally:
            over.set()

    async with served(tmp_path, noted):
        reader, writer = await connect(tmp_path)
        writer.write(frame(b"?", b'{"argv": ["true"]}'))
        await over.wait()
        for _ in range(50):  # it has ended, and is sent to all the same
            writer.write(frame(b"i", b"y" * 1000))
            await asyncio.sleep(0)
        said, told = b"", None
        async with asyncio.timeout(60):
            while told is None:
                found = await read_frame(reader)
                assert found is not None, f"cut off after {len(said)} bytes"
                kind, data = found
                if kind == b"o":
                    said += data
                else:
                    told = json.loads(data)
        writer.close()
    assert told == last or told["message"] == last
    assert len(said) == (SAID if run is says else 0)


async def test_a_place_that_is_about_to_go_takes_no_program(tmp_path: Path) -> None:
    """From the approval to the new place: the old one is being taken away, or is gone already."""
    attendant = SimpleNamespace(rebuild=None)
    none = cast("Any", None)
    plan = cast("Any", SimpleNamespace(identity="worker-00000001", backend="docker"))
    beside = Beside(plan, none, none, none, none, lambda: attended._is_to_be_rebuilt(cast("Any", attendant)))
    beside.ready = True
    attendant.rebuild = object()
    with pytest.raises(OpsError, match="worker-00000001 is still being started") as caught:
        await beside.run(Asked(argv=("true",)), none, none)
    assert caught.value.hint == "try again in a moment"


async def test_between_two_places_a_bottle_is_not_told_as_one_that_ended(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.make(Metadata("worker-00000001", "worker", "/", False, 1.0, "bwrap", phase="running"))
    with state.held("worker-00000001"), pytest.raises(OpsError, match="being started, rebuilt or ended"):
        await connect_to(state, "worker-00000001")
    with pytest.raises(NoSuchBottle, match="isn't running"):
        await connect_to(state, "worker-00000001")
