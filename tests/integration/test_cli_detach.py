"""`opsexec exec --detach`: a run that is begun from the command line, goes on without it, and is come back to."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.integration.cli_runs import Cli, error_lines
from tests.parts.ops_agent import OpsAgent


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_a_run_goes_on_when_its_command_has_ended_and_is_followed_by_what_was_printed(
    cli: Cli, ops_agent: OpsAgent, tmp_path: Path
) -> None:
    script = f"echo first; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo second; exit 3"
    begun = cli.run("exec", ops_agent.url, "--detach", "--", "sh", "-c", script)
    said, hint = error_lines(begun)
    assert begun.returncode == 0
    assert said == f"opsexec: {ops_agent.url}: begun, and goes on by itself"
    run = begun.stdout.decode().strip()
    listed = cli.run("runs", "list", ops_agent.url).stdout.decode().splitlines()
    assert [run, "running"] in [line.split()[:2] for line in listed]
    (tmp_path / "go").touch()
    again = shlex.split(hint.partition("follow it with: ")[2])
    assert again == ["opsexec", "runs", "attach", ops_agent.url, run]
    followed = cli.run(*again[1:])
    assert followed.stdout == b"first\nsecond\n"
    assert followed.returncode == 1
    assert "exit status 3" in error_lines(followed)[0]


def test_several_hosts_each_have_their_line_and_those_without_an_agent_a_reason(
    cli: Cli, ops_agent: OpsAgent, tmp_path: Path
) -> None:
    hosts = f'[hosts.there]\nurl = "{ops_agent.url}"\n[hosts.here]\nurl = "local:"\n'
    (tmp_path / "inventory.toml").write_text(hosts)
    done = cli.run("shell", "all", "--action", "t.touch", "-c", f"touch {tmp_path}/made-$$", "--detach")
    (line,) = done.stdout.decode().splitlines()
    name, _, run = line.partition(" | ")
    assert name == "there"
    assert any("here: reached without ops-agent" in each for each in error_lines(done))
    assert done.returncode == 3
    assert cli.run("runs", "attach", "there", run).returncode == 0
    assert len([*tmp_path.glob("made-*")]) == 1


def test_json_says_the_run_of_each_host(cli: Cli, ops_agent: OpsAgent) -> None:
    done = cli.run("exec", ops_agent.url, "--detach", "--json", "--", "true")
    said = json.loads(done.stdout)
    host = said["hosts"][ops_agent.url]
    assert (host["status"], host["error"], said["totals"]["changed"]) == ("changed", None, 1)
    assert cli.run("runs", "attach", ops_agent.url, host["run"]).returncode == 0
    denied = cli.run("exec", ops_agent.url, "--cap", "exec:/bin/true", "--detach", "--json", "--", "id")
    assert denied.returncode == 3
    assert json.loads(denied.stdout)["hosts"][ops_agent.url]["error"]["code"] == "denied"


@pytest.mark.parametrize(
    ("words", "stdin", "says"),
    [(["--check"], None, "--check and --detach"), ([], b"lost", "nothing can be piped into"), (["-n"], b"lost", None)],
)
def test_what_a_run_that_is_left_there_would_not_get_is_refused(
    cli: Cli, ops_agent: OpsAgent, words: list[str], stdin: bytes | None, says: str | None
) -> None:
    done = cli.run("exec", ops_agent.url, "--detach", *words, "--", "cat", stdin=stdin)
    assert done.returncode == (0 if says is None else 2)
    assert says is None or says in error_lines(done)[0]
    assert bool(done.stdout) == (says is None)
