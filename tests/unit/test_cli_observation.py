"""An Observe step as an async iterator."""

from __future__ import annotations

import asyncio
import json

import pytest

from opsexec.errors import CapabilityDenied, ConnectionLost
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
