"""The agent is killed at each stage of a run: none is lost without a record, and none is run twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opsexec import AgentRpc, CapabilitySet, NullAudit, Shell
from opsexec.audit import verify
from opsexec.errors import HostUnsuitable, OpsError
from tests.parts.limits_table import record
from tests.parts.ops_agent import OpsAgent
from tests.parts.waiting import eventually

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


def recorded(agent: OpsAgent, run: str) -> list[str]:
    """What the audit holds of a run: its decisions and outcomes, in order."""
    return ["outcome" if each["outcome"] else each["decision"] for each in agent.records() if each.get("run") == run]


async def restarted(agent: OpsAgent) -> None:
    agent.end(signal.SIGKILL)
    await asyncio.to_thread(agent.start)


def stages(agent: OpsAgent, run: str, done: Path) -> list[tuple[str, Callable[[], bool]]]:
    """What can be seen from outside of a detached run, in the order in which it happens."""
    home = agent.state / "runs" / run
    return [
        ("asked", lambda: True),
        ("directory", home.is_dir),
        ("written down", (home / "run.json").exists),
        ("runner begun", (home / "runner.log").exists),
        ("runner ready", (home / "runner").exists),
        ("program begun", lambda: "begun" in lines(done)),
        ("output kept", lambda: (home / "log").exists() and (home / "log").stat().st_size > 0),
        ("program ended", lambda: "ended" in lines(done)),
        ("status written", (home / "status").exists),
        ("settled", (home / "settled").exists),
    ]


async def kill_when(agent: OpsAgent, seen: Callable[[], bool]) -> None:
    """Kill the agent the moment something is seen; looks without rest, so that little comes between."""
    end = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < end
        await asyncio.sleep(0)
    os.kill(agent.pid, signal.SIGKILL)


async def ask_until_started(agent: OpsAgent, step: Shell, run: str) -> None:
    """Ask for a detached run as a caller does who gets no answer: again, with the same id."""
    async with rpc(agent) as ex:
        await ex.start(step, run=run)


@pytest.mark.parametrize("number", range(10))
async def test_a_detached_run_is_run_once_whenever_the_agent_dies(agent: OpsAgent, tmp_path: Path, number: int) -> None:
    done, run = tmp_path / "done", f"killed-{secrets.token_hex(6)}"
    step = count_run(done, "sleep 0.1")
    stage, seen = stages(agent, run, done)[number]
    asking = asyncio.create_task(ask_until_started(agent, step, run))
    await kill_when(agent, seen)
    with contextlib.suppress(OpsError):
        await asyncio.wait_for(asking, 20)
    await restarted(agent)
    await asyncio.wait_for(ask_until_started(agent, step, run), 20)  # the caller asks again
    lost = False
    async with rpc(agent) as ex:
        try:
            output = await asyncio.wait_for(ex.attach(run), 20)
            assert (output.exit_code, output.stdout) == (0, b"said\n"), stage
        except HostUnsuitable:  # its runner had not taken what to run: this is said and recorded
            lost = True
    assert lines(done) == ([] if lost else ["begun", "ended"]), stage
    assert not lost or stage in ("asked", "directory", "written down", "runner begun")
    await eventually(lambda: "outcome" in recorded(agent, run), within_s=10, what="its outcome is recorded")
    kinds = recorded(agent, run)
    assert kinds[0] == "allow"
    assert kinds.count("outcome") == 1, (stage, kinds)
    assert verify(agent.state / "audit.jsonl").ok
    names = [name for name, _ in stages(agent, run, done)]
    record(
        "killed-detached",
        f"killed when seen: {', '.join(names)}; asked again after each",
        "none ran twice; killed before its runner had begun, a run may be `lost`, and is recorded so; "
        "one outcome each; chain valid",
    )


async def test_a_step_whose_caller_waits_is_never_run_twice_nor_without_a_record(
    agent: OpsAgent, tmp_path: Path
) -> None:
    rounds = 24
    chance = random.Random(int(os.environ.get("OPSEXEC_FUZZ_SEED") or secrets.randbelow(1 << 32)))
    began = unheard = ended = 0
    for number in range(rounds):
        done, run = tmp_path / f"done-{number}", f"attended-{secrets.token_hex(6)}"
        step = count_run(done, "sleep 0.02")
        before = len(agent.records())
        async with rpc(agent) as ex:
            asking = asyncio.create_task(ex.run(step))
            await asyncio.sleep(chance.random() * SWEEP_S)
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
