"""Detached runs: they outlive their caller and the agent, can be followed from anywhere, and happen once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsexec import AgentRpc, CapabilitySet, CollectSink, Exec, NullAudit, Secret, Shell
from opsexec.errors import (
    CapabilityDenied,
    HostUnsuitable,
    LimitExceeded,
    PrivilegeDenied,
    ProgramNotFound,
    StepTimeout,
    UsageError,
)
from tests.integration.conftest import require_root
from tests.parts.agent_calls import JSON, http, json_lines, post
from tests.parts.ops_agent import OpsAgent
from tests.parts.process_tree import alive, processes_with_argument
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def own_agent() -> Iterator[OpsAgent]:
    """An agent that a test may kill."""
    with OpsAgent(max_run_log_bytes=1 << 20) as running:
        yield running


def rpc(agent: OpsAgent, *capabilities: str) -> AgentRpc:
    held = CapabilitySet.of(*capabilities) if capabilities else CapabilitySet.everything()
    return AgentRpc(agent.url, capabilities=held, audit=NullAudit())


def waits_for(path: Path) -> Shell:
    """A step that says so, waits until a file appears, and says so again."""
    return Shell(
        "test.wait", f"echo first; while [ ! -e {path} ]; do sleep 0.02; done; echo second; echo e >&2; exit 3"
    )


def outcomes(agent: OpsAgent, run: str) -> list[dict[str, object]]:
    return [line["outcome"] for line in agent.records() if line["run"] == run and line["outcome"]]


async def test_a_detached_run_outlives_its_caller(ops_agent: OpsAgent, tmp_path: Path) -> None:
    async with rpc(ops_agent) as ex:
        run = await ex.start(waits_for(tmp_path / "go"))
    async with rpc(ops_agent) as ex:
        (shown,) = [each for each in await ex.runs() if each["run"] == run]
        assert shown["state"] == "running"
        assert shown["detached"] is True
        (tmp_path / "go").touch()
        sink = CollectSink()
        output = await ex.attach(run, sink)
    assert sink.stdout == output.stdout == b"first\nsecond\n"
    assert sink.stderr == b"e\n"
    assert output.exit_code == 3
    assert [each["exit_code"] for each in outcomes(ops_agent, run)] == [3]


async def test_a_detached_run_outlives_an_agent_that_is_killed(own_agent: OpsAgent, tmp_path: Path) -> None:
    async with rpc(own_agent) as ex:
        run = await ex.start(waits_for(tmp_path / "go"))
    own_agent.end(signal.SIGKILL)
    own_agent.start()
    async with rpc(own_agent) as ex:
        attached = asyncio.create_task(ex.attach(run))
        (tmp_path / "go").touch()
        output = await attached
    assert output.stdout == b"first\nsecond\n"
    assert output.exit_code == 3
    assert len(outcomes(own_agent, run)) == 1


async def test_a_run_that_ends_while_no_agent_is_there_is_recorded_by_the_next(
    own_agent: OpsAgent, tmp_path: Path
) -> None:
    async with rpc(own_agent) as ex:
        run = await ex.start(waits_for(tmp_path / "go"))
    own_agent.end(signal.SIGKILL)
    (tmp_path / "go").touch()
    await eventually((own_agent.state / "runs" / run / "status").exists, within_s=10, what="the run ends")
    own_agent.start()
    async with rpc(own_agent) as ex:
        assert (await ex.attach(run)).exit_code == 3
    assert len(outcomes(own_agent, run)) == 1


async def test_a_graceful_stop_leaves_detached_runs_alone(own_agent: OpsAgent, tmp_path: Path) -> None:
    async with rpc(own_agent) as ex:
        run = await ex.start(waits_for(tmp_path / "go"))
    assert own_agent.end() == 0
    own_agent.start()
    (tmp_path / "go").touch()
    async with rpc(own_agent) as ex:
        assert (await ex.attach(run)).exit_code == 3


async def test_the_same_run_asked_for_twice_runs_once(ops_agent: OpsAgent, tmp_path: Path) -> None:
    step = Shell("test.count", f"echo x >> {tmp_path}/count")
    async with rpc(ops_agent) as ex:
        run = await ex.start(step, run="asked-for-twice-1")
        assert await ex.start(step, run=run) == run
        await ex.attach(run)
        assert await ex.start(step, run=run) == run
        with pytest.raises(UsageError, match="another one"):
            await ex.start(Shell("test.count", "true"), run=run)
    assert (tmp_path / "count").read_text() == "x\n"


async def test_a_run_can_be_followed_from_any_offset(ops_agent: OpsAgent) -> None:
    lines = b"".join(b"%d\n" % n for n in range(1, 20_001))
    async with rpc(ops_agent) as ex:
        run = await ex.start(Exec(["seq", "20000"]))
        offsets: list[int] = []
        sink = CollectSink()
        await ex.attach(run, sink, on_offset=offsets.append)
        assert sink.stdout == lines
        assert offsets == sorted(offsets)
        for offset in {0, 1, *offsets[:3], offsets[-1], 10**9}:
            part = CollectSink()
            output = await ex.attach(run, part, offset=offset)
            assert lines.endswith(part.stdout)
            assert output.stdout_bytes == len(lines)
            if offset <= 5:
                assert part.stdout == lines
        assert part.stdout in lines


async def test_what_was_taken_before_a_break_and_what_comes_after_make_the_whole(own_agent: OpsAgent) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.02; done"
    taken: list[int] = [0]
    first, rest = CollectSink(), CollectSink()
    async with rpc(own_agent) as ex:
        run = await ex.start(Shell("test.lines", script))
        following = asyncio.create_task(ex.attach(run, first, on_offset=taken.append))
        await eventually(lambda: b"line 5\n" in first.stdout, within_s=10, what="some output comes")
        own_agent.end(signal.SIGKILL)
        with pytest.raises(Exception, match="lost"):
            await following
    own_agent.start()
    async with rpc(own_agent) as ex:
        await ex.attach(run, rest, offset=taken[-1])
    assert first.stdout + rest.stdout == b"".join(b"line %d\n" % n for n in range(40))


async def test_a_run_is_ended_on_request_with_all_it_started(ops_agent: OpsAgent, tmp_path: Path) -> None:
    script = f"setsid sleep 300 & echo $! > {tmp_path}/pid; sleep 300"
    async with rpc(ops_agent) as ex:
        run = await ex.start(Shell("test.tree", script))
        await eventually(
            lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), within_s=10, what="pid"
        )
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
        await ex.signal(run)
        assert not alive(pid)
        with pytest.raises(Exception, match="ended on request"):
            await ex.attach(run)


async def test_a_run_whose_runner_was_stopped_is_ended_on_request_too(own_agent: OpsAgent) -> None:
    async with rpc(own_agent) as ex:
        run = await ex.start(Shell("test.stopped", "exec sleep 300"))
        named = own_agent.state / "runs" / run / "runner"
        await eventually(named.exists, within_s=10, what="the runner has begun")
        runner = int(named.read_text().split()[0])
        os.kill(runner, signal.SIGSTOP)
        try:
            await ex.signal(run)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(runner, signal.SIGCONT)
        with pytest.raises(Exception, match="ended on request"):
            await ex.attach(run)


async def test_a_run_whose_program_stops_its_runner_ends_at_its_deadline_all_the_same(own_agent: OpsAgent) -> None:
    async with rpc(own_agent) as ex:
        run = await ex.start(Shell("test.stops", "kill -STOP $PPID; echo stopped; exec sleep 300", timeout_s=1))
        async with asyncio.timeout(20):
            with pytest.raises(StepTimeout):
                await ex.attach(run)
    assert [each["error"] for each in outcomes(own_agent, run)] == ["timeout"]


async def test_a_signal_reaches_the_program_of_a_run(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        run = await ex.start(
            Shell("test.trap", "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.05; done")
        )
        sink = CollectSink()
        following = asyncio.create_task(ex.attach(run, sink))
        await eventually(lambda: b"ready" in sink.stdout, within_s=10, what="the trap is set")
        await ex.signal(run, "SIGUSR1")
        assert (await following).exit_code == 7
    assert sink.stdout == b"ready\ngot\n"


async def test_a_run_whose_runner_is_killed_is_recorded_and_its_program_ended(
    ops_agent: OpsAgent, tmp_path: Path
) -> None:
    async with rpc(ops_agent) as ex:
        run = await ex.start(Shell("test.lost", f"echo $$ > {tmp_path}/pid; exec sleep 300"))
        await eventually(
            lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), within_s=10, what="pid"
        )
        runner = int((ops_agent.state / "runs" / run / "runner").read_text().split()[0])
        os.kill(runner, signal.SIGKILL)
        with pytest.raises(HostUnsuitable, match="without a word"):
            await ex.attach(run)
    assert not alive(int((tmp_path / "pid").read_text()))
    assert [each["error"] for each in outcomes(ops_agent, run)] == ["lost"]


async def test_a_detached_run_ends_at_its_deadline_and_at_its_quota(own_agent: OpsAgent) -> None:
    async with rpc(own_agent) as ex:
        slow = await ex.start(Exec(["sleep", "300"], timeout_s=0.3))
        loud = await ex.start(Exec(["yes"]))
        with pytest.raises(StepTimeout):
            await ex.attach(slow)
        with pytest.raises(LimitExceeded):
            await ex.attach(loud)
    assert (own_agent.state / "runs" / loud / "log").stat().st_size <= 1 << 20


async def test_a_detached_program_that_is_not_there_is_said_by_its_end(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        run = await ex.start(Exec(["no-such-program"]))
        with pytest.raises(ProgramNotFound):
            await ex.attach(run)


async def test_what_is_refused_to_be_detached_is_in_the_audit_first(own_agent: OpsAgent) -> None:
    plain = {"type": "exec", "argv": ["true"]}
    async with rpc(own_agent) as ex:
        taken = await ex.start(Exec(["true"]))
    requests: list[dict[str, Any]] = [
        {"step": {"type": "make_dir", "path": "/tmp/never"}},
        {"step": {**plain, "creates": "/tmp/never"}},
        {"step": plain, "check": True},
        {"step": {**plain, "argv": ["id"]}, "run": taken},
    ]
    for each in requests:
        said = http(own_agent, *post(json.dumps({**each, "detach": True}).encode(), *JSON))
        (told,) = json_lines(said)
        last = [line for line in own_agent.records() if line["decision"] == "deny"][-1]
        assert (last["principal"], last["reason"]) == (f"unix:{_me()}", told["error"]["message"])


async def test_a_detached_run_of_a_user_who_is_not_there_is_refused_as_any_step_is(ops_agent: OpsAgent) -> None:
    require_root()
    async with rpc(ops_agent) as ex:
        for ask in (ex.run, ex.start):
            with pytest.raises(PrivilegeDenied, match="there is no user 'nobody-of-that-name'"):
                await ask(Exec(["true"], run_as="nobody-of-that-name"))


async def test_a_detached_run_reads_its_input_and_secrets_stay_off_the_disk(ops_agent: OpsAgent) -> None:
    step = Exec(
        ["sh", "-c", "cat | wc -c; printenv TOKEN | wc -c"], stdin=Secret("s3cr3t-in"), env={"TOKEN": Secret("s3cr3t")}
    )
    async with rpc(ops_agent) as ex:
        run = await ex.start(step)
        assert (await ex.attach(run)).stdout.split() == [b"9", b"7"]
    for file in (ops_agent.state / "runs" / run).iterdir():
        assert b"s3cr3t" not in file.read_bytes(), file
    assert "s3cr3t" not in (ops_agent.state / "audit.jsonl").read_text()


async def test_a_denied_step_is_not_started(tmp_path: Path) -> None:
    grants = [{"principal": f"unix:{_me()}", "capabilities": ["exec:/bin/true"]}]
    with OpsAgent(grants) as agent:
        async with rpc(agent) as ex:
            with pytest.raises(CapabilityDenied) as denied:
                await ex.start(Exec(["touch", str(tmp_path / "x")]))
        assert denied.value.layer == "agent"
        assert list((agent.state / "runs").iterdir()) == []


async def test_only_settled_runs_beyond_the_limit_are_forgotten() -> None:
    with OpsAgent(keep_runs=3) as agent:
        async with rpc(agent) as ex:
            runs = []
            for _ in range(6):
                runs.append(await ex.start(Exec(["true"])))
                await ex.attach(runs[-1])
            await eventually(lambda: len(list((agent.state / "runs").iterdir())) == 3, within_s=10, what="pruning")
            assert [each["run"] for each in await ex.runs()] == runs[:2:-1]


def _me() -> str:
    from tests.parts.unix_user import current_user

    return current_user()


async def test_purging_ends_detached_runs_also_when_the_unit_went_before(tmp_path: Path) -> None:
    install = Path(__file__).parents[2] / "deploy" / "install.sh"
    agent = OpsAgent()
    agent.state = tmp_path / ".local" / "state" / "ops-agent"
    agent.write_config([{"principal": f"unix:{current_user()}", "capabilities": ["exec:**"]}])
    with agent:
        async with rpc(agent) as ex:
            await ex.start(Exec(["sleep", "66.0219"]))
        await eventually(lambda: processes_with_argument("66.0219"), within_s=20, what="the program")
    assert processes_with_argument("66.0219"), "it lives on"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    argv = ["sh", str(install), "--user", "--manager", "systemd", "--uninstall", "--purge"]
    await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True, env=environment, timeout=60)
    await eventually(lambda: not processes_with_argument("66.0219"), within_s=20, what="its end")
    assert not agent.state.exists()
