"""An Observe step as an async iterator."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json

import pytest

from opsexec.cli.facts import Samples
from opsexec.errors import CapabilityDenied, ConnectionLost, ProtocolError
from opsexec.observation import WAITING, Observation
from opsexec.steps import Observe

pytestmark = pytest.mark.anyio


class FakeExecutor:
    """Makes samples as fast as they are taken; `fails` after `count` of them."""

    def __init__(self, count: int, fails: Exception | None = None) -> None:
        self.count = count
        self.fails = fails
        self.made = 0
        self.ended = False

    async def run(self, step, sink):
        try:
            while self.made < self.count:
                self.made += 1
                await sink.write("stdout", json.dumps({"n": self.made}).encode() + b"\n")
            if self.fails is not None:
                raise self.fails
        finally:
            self.ended = True


async def test_samples_come_in_order_and_end() -> None:
    fake_executor = FakeExecutor(3)
    assert [s["n"] async for s in Observation(fake_executor, Observe(count=3))] == [1, 2, 3]  # type: ignore[arg-type]  # a fake


@pytest.mark.parametrize("error", [ConnectionLost("gone"), CapabilityDenied("observe:load", [])])
async def test_what_the_step_raises_is_raised_after_the_samples_before_it(error) -> None:
    observation = Observation(FakeExecutor(2, error), Observe())  # type: ignore[arg-type]  # a fake
    assert [(await anext(observation))["n"], (await anext(observation))["n"]] == [1, 2]
    with pytest.raises(type(error)):
        await anext(observation)
    with pytest.raises(StopAsyncIteration):
        await anext(observation)


async def test_a_reader_that_is_slow_or_gone_stops_the_host() -> None:
    fake_executor = FakeExecutor(10**9)
    observation = Observation(fake_executor, Observe())  # type: ignore[arg-type]  # a fake
    assert (await anext(observation))["n"] == 1
    for _ in range(50):
        await asyncio.sleep(0)
    assert fake_executor.made <= WAITING + 2
    await observation.aclose()
    assert fake_executor.ended
    with pytest.raises(StopAsyncIteration):
        await anext(observation)


class TakenOutput:
    """Where samples are shown: kept."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []

    async def write(self, stream: str, data: bytes) -> None:
        self.shown.append(data)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("line", [b"[1]", b"{", b"9", b"[" * 100_000])
async def test_a_line_that_is_no_sample_is_the_hosts_fault_and_said_so(line: bytes, as_json: bool) -> None:
    output = TakenOutput()
    sink = Samples(argparse.Namespace(json=as_json)).of_host("web1", output, several=False)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match=r"web1: .*no sample"):
        await sink.write("stdout", line + b"\n")
    assert output.shown == []


@pytest.mark.parametrize(
    "sample",
    [
        {},
        {"ts": 1e300},
        {"ts": 1e17},
        {"ts": "now"},
        {"ts": 0, "load": 3},
        {"ts": 0, "load": {"load1": "1"}},
        {"ts": 0, "disks": [3]},
        {"ts": 0, "services": {"failed": 3}},
        {"ts": 0, "event": "run"},
        {"ts": 0, "event": ["run"]},
        {"ts": 0, "memory": {"total_bytes": "1", "available_bytes": 2}},
    ],
)
async def test_a_sample_of_other_kinds_than_samples_have_is_the_hosts_fault(sample: object) -> None:
    sink = Samples(argparse.Namespace(json=False)).of_host("web1", TakenOutput(), several=False)  # type: ignore[arg-type]
    with contextlib.suppress(ProtocolError):
        await sink.write("stdout", json.dumps(sample).encode() + b"\n")
