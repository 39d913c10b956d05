"""The agent is killed at random during runs: none is without a record, and none is run twice."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import AgentRpc, CapabilitySet, NullAudit, Shell
from opsexec.audit import verify
from opsexec.errors import OpsError
from tests.parts.limits_table import record
from tests.parts.ops_agent import OpsAgent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]
SWEEP_S = 0.06
"""Kills fall anywhere in so many seconds from when the request begins to go out."""


@pytest.fixture
def agent() -> Iterator[OpsAgent]:
    """An agent that these tests kill."""
    with OpsAgent() as running:
        yield running


def rpc(agent: OpsAgent) -> AgentRpc:
    return AgentRpc(agent.url, capabilities=CapabilitySet.everything(), audit=NullAudit())


def count_run(path: Path, more: str = "true") -> Shell:
    """A step that leaves a line when it begins and one when it ends."""
    return Shell("test.count", f"echo begun >> {path}; echo said; {more}; echo ended >> {path}")


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def restarted(agent: OpsAgent) -> None:
    agent.end(signal.SIGKILL)
    await asyncio.to_thread(agent.start)


async def test_a_step_whose_caller_waits_is_never_run_twice_nor_without_a_record(
    agent: OpsAgent, tmp_path: Path
) -> None:
    rounds = 16
    chance = random.Random(int(os.environ.get("OPSEXEC_FUZZ_SEED") or secrets.randbelow(1 << 32)))
    began = unheard = ended = 0
    for number in range(rounds):
        done, run = tmp_path / f"done-{number}", f"attended-{secrets.token_hex(6)}"
        step = count_run(done, "sleep 0.02")
        before = len(agent.records())
        async with rpc(agent) as ex:
            asking = asyncio.create_task(ex.run(step))
            await asyncio.sleep(chance.random() * SWEEP_S)  # killed at a moment that nobody chose
            os.kill(agent.pid, signal.SIGKILL)
            try:
                await asyncio.wait_for(asking, 20)
                ended += 1
            except OpsError:
                unheard += 1
        await restarted(agent)
        after = agent.records()[before:]
        allowed = [each for each in after if each["decision"] == "allow"]
        assert lines(done) in ([], ["begun"], ["begun", "ended"]), (number, run, lines(done))
        if lines(done):
            began += 1
            assert len(allowed) == 1, (number, after)
    assert verify(agent.state / "audit.jsonl").ok
    saw = f"{began} had begun, once and after their allow line; {unheard} callers were told of the loss, "
    saw += f"{ended} had their end; chain valid"
    record("killed-attended", f"{rounds} runs, killed at random within {SWEEP_S * 1000:.0f} ms of asking", saw)
