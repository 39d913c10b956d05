"""Observing a host: samples on a beat, until the observer closes, under a grant of its own."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from opsexec import CapabilityDenied, ConnectionLost, Observe
from opsexec.executor import Stream
from opsexec.steps.observe import OBSERVE_NAMES
from tests.parts.holdings import Holdings
from tests.parts.sshd import Sshd
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
QUICK = tuple(name for name in OBSERVE_NAMES if name != "services")


async def test_samples_come_one_by_one_until_the_observer_closes(target: Target) -> None:
    async with target.connect() as ex:
        before = Holdings.now()
        events = ex.observe(*QUICK, interval_s=0.05)
        assert events is not None
        samples = []
        async for sample in events:
            samples.append(sample)
            if len(samples) == 3:
                break
        await events.aclose()
        assert all(set(QUICK) <= set(sample) for sample in samples)
        with pytest.raises(StopAsyncIteration):
            await anext(aiter(events))
        tasks = lambda: [line for line in before.left_since() if line.startswith("<Task")]  # noqa: E731 - said once
        await eventually(lambda: not tasks(), within_s=20, what="the end of the observer's tasks")


async def test_a_count_ends_it_and_the_beat_is_kept(target: Target) -> None:
    class Lines:
        data = b""

        async def write(self, stream: Stream, data: bytes) -> None:
            self.data += data

    sink = Lines()
    async with target.connect() as ex:
        await ex.run(Observe(names=QUICK, interval_s=0.05, count=1))
        begun = time.monotonic()
        await ex.run(Observe(names=QUICK, interval_s=0.2, count=4), sink)
        took = time.monotonic() - begun
    assert 0.6 <= took < 10
    assert [set(json.loads(line)) >= set(QUICK) for line in sink.data.splitlines()] == [True] * 4


async def test_what_is_observed_needs_its_grant(target: Target) -> None:
    async with target.connect(f"observe:{QUICK[0]}") as ex:
        assert (await ex.run(Observe(names=(QUICK[0],), interval_s=0.05, count=1))).ok
        with pytest.raises(CapabilityDenied, match="observe:"):
            await ex.run(Observe(names=QUICK, count=1))
        events = ex.observe(*QUICK)
        assert events is not None
        with pytest.raises(CapabilityDenied):
            await anext(aiter(events))
        await events.aclose()


@pytest.mark.parametrize("interval_s", [0.05, 1.0])
async def test_an_observer_hears_of_a_lost_connection(ssh_root: Target, sshd: Sshd, interval_s: float) -> None:
    async with ssh_root.connect() as ex:
        events = ex.observe(*QUICK, interval_s=interval_s)
        assert events is not None
        await anext(aiter(events))
        before = sshd.connections_accepted()
        sshd.kill_connections()

        async def to_the_end() -> None:
            async for _ in events:
                continue

        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(to_the_end(), 20)
        await events.aclose()
        assert sshd.connections_accepted() == before
