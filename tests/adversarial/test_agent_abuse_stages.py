"""The agent is killed at named points of a run, from inside: none is lost without a record, and none is run twice."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import AgentRpc, CapabilitySet, NullAudit, Shell
from opsexec.audit import verify
from opsexec.errors import ConnectionLost, HostUnsuitable, OpsError
from tests.parts.dying_agent import ATTENDED, DETACHED
from tests.parts.limits_table import record
from tests.parts.ops_agent import OpsAgent
from tests.parts.process_tree import processes_with_argument
from tests.parts.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]
PATIENCE_S = 60.0

SEEN: dict[str, dict[str, str]] = {"attended": {}, "detached": {}}
"""By kind and stage: what the row of the table says of it, once each stage was seen."""

BOTH = ["begun", "ended"]

ATTENDED_ENDS: dict[str, tuple[list[list[str]], list[str]]] = {
    "before its allow line": ([[]], []),
    "after its allow line": ([[]], ["allow"]),
    "spawned, not marked": ([[], ["begun"]], ["allow"]),
    "output under way": ([["begun"]], ["allow"]),
    "ended, before its outcome line": ([BOTH], ["allow"]),
    "outcome line, before the answer": ([BOTH], ["allow", "outcome"]),
}
"""By stage: what the program may have done, and which lines the audit holds of the run."""

DETACHED_ENDS: dict[str, tuple[bool, list[str]]] = {
    "before its allow line": (False, ["allow", "outcome"]),
    "after its allow line": (False, ["allow", "allow", "outcome"]),
    "written down, not spawned": (True, ["allow", "allow", "outcome"]),
    "spawned, not told what to run": (True, ["allow", "allow", "outcome"]),
    "started, not answered": (False, ["allow", "allow", "outcome"]),
    "output under way": (False, ["allow", "allow", "outcome"]),
    "ended, before its outcome line": (False, ["allow", "allow", "outcome"]),
    "outcome line, not noted": (False, ["allow", "outcome", "allow"]),
    "noted, before the answer": (False, ["allow", "outcome", "allow"]),
}
"""By stage, with the run asked for again by its id after it: whether it is lost, and the audit's decisions on starting
it, the second of which only says that it was started before, and its outcomes. In no order but their own."""


@pytest.fixture
def agent() -> Iterator[OpsAgent]:
    """An agent that is not started yet."""
    made = OpsAgent()
    try:
        yield made
    finally:
        made.__exit__(None, None, None)


def rpc(agent: OpsAgent) -> AgentRpc:
    return AgentRpc(agent.url, capabilities=CapabilitySet.everything(), audit=NullAudit())


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def kinds(agent: OpsAgent, run: str | None = None) -> list[str]:
    """What the audit holds of runs that were begun: decisions and outcomes, in order."""
    found = []
    for each in agent.records():
        if run in (None, each["run"]) and (each["step"] is None or each["step"]["type"] == "shell"):
            found.append("outcome" if each["outcome"] else each["decision"])
    return found


def note(kind: str, stage: str, saw: str) -> None:
    """Keep what was seen at a stage; the last of them writes the row."""
    SEEN[kind][stage] = saw
    stages = ATTENDED if kind == "attended" else DETACHED
    if set(SEEN[kind]) != set(stages):
        return
    did, all_of_it = f"{len(stages)} named points", "; ".join(f"{at}: {SEEN[kind][at]}" for at in stages)
    if kind == "attended":
        record("stages-attended", did, all_of_it)
    else:
        record("stages-detached", did, all_of_it)


async def dies(agent: OpsAgent, kind: str, stage: str) -> None:
    """Start the agent that dies at this stage."""
    agent.program = ("-m", "tests.parts.dying_agent", kind, stage)
    await asyncio.to_thread(agent.start)


async def revived(agent: OpsAgent) -> None:
    """Wait until the agent has died, and start it as it stands."""
    assert await asyncio.to_thread(agent.died) == -signal.SIGKILL
    agent.program = ("-m", "agent")
    await asyncio.to_thread(agent.start)


@pytest.mark.parametrize("stage", ATTENDED)
async def test_killed_at_any_stage_a_run_is_recorded_ended_and_not_repeated(
    stage: str, agent: OpsAgent, tmp_path: Path
) -> None:
    done, number = tmp_path / "done", f"66.{secrets.randbelow(10**6):06}"
    allowed, recorded = ATTENDED_ENDS[stage]
    hold = "true" if BOTH in allowed else f"sleep {number}"
    step = Shell("test.count", f"echo begun >> {done}; echo said; {hold}; echo ended >> {done}")
    await dies(agent, "attended", stage)
    async with rpc(agent) as ex:
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(ex.run(step), PATIENCE_S)
    await revived(agent)
    await eventually(lambda: not processes_with_argument(number), within_s=3, what="what it began is ended")
    did = lines(done)
    assert did in allowed
    assert kinds(agent) == recorded
    async with rpc(agent) as ex:
        await ex.run(Shell("test.next", "true"))
    assert lines(done) == did
    assert verify(agent.state / "audit.jsonl").ok
    ran = {0: "nothing ran", 1: "ended with the agent", 2: "ran once"}[max(len(each) for each in allowed)]
    note("attended", stage, f"{ran}, {' and '.join(recorded) or 'no'} line")


async def start_and_follow(agent: OpsAgent, step: Shell, run: str) -> None:
    async with rpc(agent) as ex:
        await ex.start(step, run=run)
        await ex.attach(run)


@pytest.mark.parametrize("stage", DETACHED)
async def test_killed_at_any_stage_a_detached_run_is_run_once_or_recorded_as_lost(
    stage: str, agent: OpsAgent, tmp_path: Path
) -> None:
    done, run = tmp_path / "done", f"killed-{secrets.token_hex(6)}"
    step = Shell("test.count", f"echo begun >> {done}; echo said; sleep 0.1; echo ended >> {done}")
    lost, recorded = DETACHED_ENDS[stage]
    await dies(agent, "detached", stage)
    with pytest.raises(OpsError):
        await asyncio.wait_for(start_and_follow(agent, step, run), PATIENCE_S)
    await revived(agent)
    async with rpc(agent) as ex:
        await asyncio.wait_for(ex.start(step, run=run), PATIENCE_S)  # as a caller does who got no answer
        if lost:
            with pytest.raises(HostUnsuitable):
                await asyncio.wait_for(ex.attach(run), PATIENCE_S)
        else:
            output = await asyncio.wait_for(ex.attach(run), PATIENCE_S)
            assert (output.exit_code, output.stdout) == (0, b"said\n")
    assert lines(done) == ([] if lost else BOTH)
    found = kinds(agent, run)
    assert sorted(found) == sorted(recorded), found
    assert found[0] == "allow"
    assert verify(agent.state / "audit.jsonl").ok
    outcomes = found.count("outcome")
    saw = ("lost, and recorded so" if lost else "ran once") + (f", {outcomes} outcome lines" if outcomes > 1 else "")
    note("detached", stage, saw)
