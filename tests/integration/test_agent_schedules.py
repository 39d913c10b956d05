"""Schedules of a real agent: done without their caller, once, whatever becomes of the agent; asked for by a command."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsexec import AgentRpc, CapabilitySet, Exec, NullAudit
from opsexec.audit import verify
from opsexec.errors import CapabilityDenied, HostUnsuitable, UsageError
from opsexec.steps import ScheduleAdd, ScheduleRemove, ScheduleRun, WriteFile
from tests.integration.cli_runs import Cli, error_lines
from tests.parts.dying_agent import STAGES
from tests.parts.host_key import host_key
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.process_tree import alive
from tests.parts.targets import Target
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually, eventually_now

pytestmark = pytest.mark.anyio
ME = f"unix:{current_user()}"
OFTEN = "* * * * * *"


@pytest.fixture
def own_agent() -> Iterator[OpsAgent]:
    """An agent that a test may kill."""
    with OpsAgent() as running:
        yield running


def rpc(agent: OpsAgent, *capabilities: str) -> AgentRpc:
    held = CapabilitySet.of(*capabilities) if capabilities else CapabilitySet.everything()
    return AgentRpc(agent.url, capabilities=held, audit=NullAudit())


def turns(agent: OpsAgent) -> list[dict[str, Any]]:
    return [x for x in agent.records() if x["step"] and x["step"]["type"] == "schedule.turn"]


def outcomes(agent: OpsAgent, run: str) -> list[dict[str, Any]]:
    return [x["outcome"] for x in agent.records() if x["run"] == run and x["outcome"]]


def soon(seconds: int = 2) -> str:
    """A cron expression that is due once, so many seconds from now, and then not for a minute."""
    return f"{int(time.time() + seconds) % 60} * * * * *"


def counting(file: Path) -> Exec:
    return Exec(["sh", "-c", f"echo x >> {file}"])


def count(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_words_of_a_host_that_are_no_text_end_a_turn_and_not_the_agent(
    own_agent: OpsAgent, tmp_path: Path
) -> None:
    """Whoever may put a link where a schedule writes can have a name that isn't UTF-8 stand in its error."""
    odd = os.fsencode(tmp_path) + b"/\xff"
    os.mkfifo(odd)
    os.symlink(odd, tmp_path / "link")
    async with rpc(own_agent) as ex:
        await ex.run(ScheduleAdd("odd", "0 0 1 1 *", steps=(WriteFile(f"{tmp_path}/link/x", content="x"),)))
        run = (await ex.run(ScheduleRun("odd"))).value["run"]
        await eventually(lambda: outcomes(own_agent, run), within_s=30, what="the turn's end")
        last = (await ex.schedule("odd"))["last"]
    assert (last["run"], last["state"]) == (run, "failed")
    assert "is not a directory" in last["detail"]
    assert own_agent.end() == 0


async def test_a_schedule_is_done_when_its_caller_has_gone(own_agent: OpsAgent, tmp_path: Path) -> None:
    async with rpc(own_agent) as ex:
        steps = (counting(tmp_path / "a"), WriteFile(f"{tmp_path}/b", content="x"))
        added = await ex.run(ScheduleAdd("both", OFTEN, steps=steps))
    assert added.changed
    await eventually((tmp_path / "b").exists, within_s=10, what="a turn is done")
    async with rpc(own_agent) as ex:
        (shown,) = await ex.schedules()
        assert (shown["name"], shown["owner"], shown["enabled"]) == ("both", ME, True)
        await ex.run(ScheduleRemove("both"))
        assert await ex.schedules() == []
    done = turns(own_agent)
    assert count(tmp_path / "a") == len(done) == len({each["run"] for each in done})
    assert verify(own_agent.state / "audit.jsonl").ok


async def test_a_runbook_is_done_on_the_host_itself(own_agent: OpsAgent, tmp_path: Path) -> None:
    book = f"""
name: nightly
hosts: all
vars: {{ word: hello }}
steps:
  - write: {{ path: {tmp_path}/said, content: "${{word}}\\n" }}
  - exec: [cat, {tmp_path}/said]
    register: out
  - assert: {{ that: "${{out.exit_code}} == 0" }}
"""
    async with rpc(own_agent) as ex:
        await ex.run(ScheduleAdd("book", "0 0 1 1 *", runbook=book))
        run = (await ex.run(ScheduleRun("book"))).value["run"]
        await eventually(lambda: outcomes(own_agent, run), within_s=20, what="the turn ends")
        assert (await ex.schedule("book"))["last"]["state"] == "ok"
    assert outcomes(own_agent, run)[0]["exit_code"] == 0
    assert (tmp_path / "said").read_text() == "hello\n"


async def test_a_reload_that_takes_a_grant_away_takes_it_from_schedules(own_agent: OpsAgent, tmp_path: Path) -> None:
    async with rpc(own_agent) as ex:
        await ex.run(ScheduleAdd("a", "0 0 1 1 *", steps=(counting(tmp_path / "a"),)))
    own_agent.write_config([{"principal": ME, "capabilities": ["schedule.manage:*", "exec:/bin/true"]}])
    own_agent.send(signal.SIGHUP)
    await eventually(lambda: "reloaded" in own_agent.said(), within_s=10, what="the agent reloads")
    async with rpc(own_agent) as ex:
        run = (await ex.run(ScheduleRun("a"))).value["run"]
        await eventually(lambda: outcomes(own_agent, run), within_s=10, what="the turn ends")
        assert outcomes(own_agent, run)[0]["error"] == "denied"
        assert [each["name"] for each in await ex.schedules()] == ["a"]
    (denial,) = [x for x in own_agent.records() if x["run"] == run + "-0"]
    assert (denial["decision"], denial["principal"]) == ("deny", ME)
    assert not (tmp_path / "a").exists()


async def test_nobody_takes_the_run_id_of_a_turn_that_is_still_to_come(own_agent: OpsAgent, tmp_path: Path) -> None:
    """Its id says when it is due, and the ids of former turns say the rest: who took it would stop the schedule."""
    async with rpc(own_agent) as ex:
        await ex.run(ScheduleAdd("a", "0 0 1 1 *", steps=(counting(tmp_path / "a"),)))
        turn = (await ex.run(ScheduleRun("a"))).value["run"]
        await eventually(lambda: outcomes(own_agent, turn), within_s=20, what="the turn ends")
        foreseen = f"{turn.rpartition('-')[0]}-1798761600-0"
        before = len(own_agent.records())
        with pytest.raises(UsageError, match="begins with sched-"):
            await ex.start(Exec(["/bin/true"]), run=foreseen)
        ex._next_run = foreseen
        with pytest.raises(UsageError, match="begins with sched-"):
            await ex.run(Exec(["/bin/true"]))
    assert [x["decision"] for x in own_agent.records()[before:]] == ["deny", "deny"]
    assert not (own_agent.state / "runs" / foreseen).exists()


async def test_each_layer_refuses_a_schedule_by_itself() -> None:
    step = ScheduleAdd("backup", OFTEN, steps=(Exec(["/bin/true"]),))
    grants = [{"principal": ME, "capabilities": ["schedule.manage:tidy", "exec:**"]}]
    with OpsAgent(grants) as agent:
        async with rpc(agent, "schedule.manage:tidy", "exec:**") as ex:
            with pytest.raises(CapabilityDenied) as caller:
                await ex.run(step)
        before = len(agent.records())
        async with rpc(agent) as ex:
            with pytest.raises(CapabilityDenied) as host:
                await ex.run(step)
            with pytest.raises(CapabilityDenied):
                await ex.schedule("backup")
        async with rpc(agent, "schedule.manage:*", "exec:/bin/false") as ex:
            with pytest.raises(CapabilityDenied, match="exec:/bin/true"):
                await ex.run(step)
        assert (caller.value.layer, host.value.layer) == ("caller", "agent")
        assert len(agent.records()) > before
        assert list((agent.state / "schedules").glob("*")) == []


async def test_hosts_without_an_agent_keep_no_schedules(local: Target, ssh_root: Target) -> None:
    for target in (local, ssh_root):
        async with target.connect() as ex:
            with pytest.raises(HostUnsuitable, match="needs ops-agent"):
                await ex.run(ScheduleRemove("a"))


# -- the agent is killed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
async def test_killed_at_any_stage_a_turn_is_never_done_twice_nor_lost_without_a_record(
    stage: str, tmp_path: Path
) -> None:
    file = tmp_path / "count"
    with OpsAgent() as agent:
        async with rpc(agent) as ex:
            steps = (counting(file), counting(file))
            await ex.run(ScheduleAdd("a", soon(5), steps=steps, missed="once"))
        agent.end(signal.SIGKILL)
        agent.program = ("-m", "tests.parts.dying_agent", "schedule", stage)
        agent.begin()
        assert agent.died() == -signal.SIGKILL
        agent.program = ("-m", "agent")
        agent.start()
        async with rpc(agent) as ex:
            await eventually(lambda: turns(agent) and outcomes(agent, turns(agent)[0]["run"]), within_s=20, what="end")
            shown = await ex.schedule("a")
            assert (shown["running"], shown["waiting"]) == (None, 0)
        runs = {each["run"] for each in turns(agent)}
        assert len(runs) == 1
        (run,) = runs
        ended = outcomes(agent, run)[-1]
        if stage == "written down":  # the program was never started, and nobody can prove that to the next agent
            assert (count(file), ended["error"]) == (0, "unsuitable")
            assert [each["error"] for each in outcomes(agent, run + "-0")] == ["lost"]
        else:
            assert (count(file), ended["exit_code"], ended["steps_done"]) == (2, 0, 2)
            assert all(outcomes(agent, f"{run}-{number}") for number in (0, 1))
        assert verify(agent.state / "audit.jsonl").ok


async def test_a_step_that_ends_with_the_agent_is_lost_and_recorded(own_agent: OpsAgent, tmp_path: Path) -> None:
    book = f"name: b\nhosts: all\nsteps:\n  - exec: [sh, -c, 'echo $$ > {tmp_path}/pid; sleep 300']\n"
    async with rpc(own_agent) as ex:
        await ex.run(ScheduleAdd("book", "0 0 1 1 *", runbook=book))
        run = (await ex.run(ScheduleRun("book"))).value["run"]
    await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), within_s=20, what="begun")
    pid = int((tmp_path / "pid").read_text())
    own_agent.end(signal.SIGKILL)
    own_agent.start()
    async with rpc(own_agent) as ex:
        await eventually(lambda: outcomes(own_agent, run), within_s=10, what="the turn is recorded")
        assert (await ex.schedule("book"))["last"]["state"] == "lost"
    await eventually(lambda: not alive(pid), within_s=10, what="its program is ended")
    assert "unknown" in outcomes(own_agent, run)[0]["detail"]


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_command_keeps_lists_runs_and_removes(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with OpsAgent() as agent:
        url = agent.url
        done = cli.run(
            "schedule", "add", url, "tidy", "--cron", "0 3 * * *", "--tz", "Europe/Berlin", "--", "echo", "hi"
        )
        assert (done.returncode, done.stderr) == (0, b"")
        again = cli.run(
            "schedule", "add", url, "tidy", "--cron", "0 3 * * *", "--tz", "Europe/Berlin", "--", "echo", "hi"
        )
        assert "is so already" in error_lines(again)[0]
        listed = json.loads(cli.run("schedule", "list", url, "--json").stdout)["schedules"]
        assert [(each["name"], each["timezone"]) for each in listed] == [("tidy", "Europe/Berlin")]
        assert b"exec echo hi" in cli.run("schedule", "list", url).stdout
        run = json.loads(cli.run("schedule", "run", url, "tidy", "--json").stdout)["value"]["run"]
        eventually_now(lambda: outcomes(agent, run), within_s=10, what="the turn ends")
        assert cli.run("runs", "attach", url, run + "-0").stdout == b"hi\n"
        assert run.encode() in cli.run("runs", "list", url).stdout
        assert b"exit_code               0" in cli.run("runs", "show", url, run + "-0").stdout
        assert b"schedule:tidy@" in cli.run("audit", "show", run, url).stdout
        assert b"disabled" in cli.run("schedule", "disable", url, "tidy").stdout
        assert b"enabled" in cli.run("schedule", "enable", url, "tidy").stdout
        assert cli.run("schedule", "remove", url, "tidy").returncode == 0
        gone = cli.run("schedule", "show", url, "tidy")
        assert (gone.returncode, error_lines(gone)[0][-25:]) == (2, "there is no schedule tidy")
    assert {json.loads(line)["listener"] for line in cli.audit.read_text().splitlines()} == {"cli"}


@pytest.mark.parametrize(
    "words",
    [
        ("add", "HOST", "a", "--cron", "* * * * *"),
        ("add", "HOST", "a", "--cron", "* * * * *", "--script", "x.sh"),
        ("add", "HOST", "a", "--cron", "* * * * *", "--runbook", "missing.yaml"),
        ("add", "HOST", "A B", "--cron", "* * * * *", "--", "id"),
        ("add", "HOST", "a", "--cron", "every day", "--", "id"),
        ("add", "HOST", "a", "--", "id"),
        ("add", "HOST", "a", "--cron", "* * * * *", "--overlap", "maybe", "--", "id"),
        ("remove", "HOST", "a", "--", "id"),
    ],
)
def test_a_command_that_makes_no_sense_is_a_usage_error(words: tuple[str, ...], tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with OpsAgent() as agent:
        done = cli.run("schedule", *(agent.url if word == "HOST" else word for word in words))
    assert done.returncode == 2
    assert error_lines(done)


def test_runs_are_killed_by_the_command_and_left_by_ctrl_c(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with OpsAgent(EVERYTHING_FOR_ME) as agent:
        cli.run("schedule", "add", agent.url, "long", "--cron", "0 0 1 1 *", "--", "sh", "-c", "echo begun; sleep 300")
        run = json.loads(cli.run("schedule", "run", agent.url, "long", "--json").stdout)["value"]["run"]
        eventually_now(lambda: (agent.state / "runs" / (run + "-0")).exists(), within_s=10, what="the run begins")
        with cli.start("runs", "attach", agent.url, run + "-0") as following:
            assert following.stdout is not None
            assert following.stdout.readline() == b"begun\n"
            following.send_signal(signal.SIGINT)
            _, said = following.communicate(timeout=20)
        assert following.returncode == 130
        assert b"the run goes on" in said
        assert cli.run("runs", "kill", agent.url, run + "-0").returncode == 0
        eventually_now(lambda: outcomes(agent, run), within_s=10, what="the turn ends")
        assert outcomes(agent, run)[0]["error"] == "step_failed"


EVERYTHING_FOR_ME = [{"principal": ME, "capabilities": EVERYTHING, "run_as": ["*"]}]


# -- the host's audit -----------------------------------------------------------------------------------------------


def test_a_hosts_audit_is_read_checked_and_vouched_for(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    key, other = host_key(tmp_path), host_key(tmp_path, "other")
    with OpsAgent(tables=f'[audit]\nhost_key = "{key}"\nsign_every_s = 1') as agent:
        url = agent.url
        assert cli.run("exec", url, "--", "echo", "hi").stdout == b"hi\n"
        eventually_now((agent.state / "audit.jsonl.heads").exists, within_s=10, what="a head is signed")
        assert b"exec  echo hi" in cli.run("audit", "tail", url).stdout
        (line, *_) = cli.run("audit", "tail", url, "--json").stdout.splitlines()
        run = json.loads(line)["run"]
        assert len(json.loads(cli.run("audit", "show", run[:8], url, "--json").stdout)["records"]) == 2
        checked = cli.run("audit", "verify", url, "--key", f"{key}.pub")
        assert (checked.returncode, checked.stdout.count(b"signed by agent-under-test")) == (0, 1)
        wrong = cli.run("audit", "verify", url, "--key", f"{other}.pub")
        assert (wrong.returncode, "not signed by a key" in error_lines(wrong)[0]) == (1, True)
        found = json.loads(cli.run("audit", "verify", url, "--json").stdout)
        assert (found["ok"], found["signed"]["host"]) == (True, "agent-under-test")
        agent.end()
        log = agent.state / "audit.jsonl"
        assert b"; 0 lines since" in cli.run("audit", "verify", log, "--key", f"{key}.pub").stdout  # signed at the end
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
        agent.start()
        assert "cut off" in agent.said()
        cut = cli.run("audit", "verify", url)
        assert (cut.returncode, "not in order" in error_lines(cut)[0]) == (1, True)


def test_an_interrupted_look_at_a_hosts_audit_is_none_that_found_something(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with OpsAgent() as agent:
        agent.send(signal.SIGSTOP)
        try:
            with cli.start("audit", "verify", agent.url) as looking:
                eventually_now(lambda: cli.audit.exists() and cli.audit.stat().st_size, within_s=20, what="it asks")
                looking.send_signal(signal.SIGINT)
                _, said = looking.communicate(timeout=20)
        finally:
            agent.send(signal.SIGCONT)
    assert looking.returncode == 130
    assert said == b"opsexec: interrupted by SIGINT: the audit was not read to its end\n"


def test_who_may_not_read_the_audit_is_refused(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    with OpsAgent([{"principal": ME, "capabilities": ["audit.read:verify"]}]) as agent:
        assert cli.run("audit", "verify", agent.url).returncode == 0
        for words in (("tail", agent.url), ("show", "80f2", agent.url)):
            done = cli.run("audit", *words)
            assert (done.returncode, "audit.read" in error_lines(done)[0]) == (3, True)


def test_an_agent_whose_key_was_named_and_is_missing_doesnt_start(tmp_path: Path) -> None:
    agent = OpsAgent(tables=f'[audit]\nhost_key = "{tmp_path}/missing"')
    with pytest.raises(AssertionError, match="the audit's heads are not signed"), agent:
        pass
