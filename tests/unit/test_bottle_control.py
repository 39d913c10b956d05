"""The launcher's own door: what a program said arrives whole, whatever its caller is still sending."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bottle.control import Asked, Runner, served
from bottle.control_wire import connect, frame, read_frame
from opsexec.errors import UsageError
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
