"""The commands that read: hosts, facts, observe, audit, runs, schema, actions; and copying trees."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.cli_runs import Cli, error_lines, wait_for
from tests.parts.sshd import Sshd, find_sshd


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    require(find_sshd() is not None, "needs sshd")
    with Sshd(listen=["127.0.0.67", "127.0.0.68"]) as server:
        yield server


@pytest.fixture
def cli(tmp_path: Path, sshd: Sshd) -> Cli:
    """A Cli whose inventory names web1 and web2 (group web), and the variable of a secret."""
    text = ""
    for name, end in zip(("web1", "web2"), sshd.endpoints, strict=True):
        text += (
            f'[hosts.{name}]\nurl = "{end.url}"\ngroups = ["web"]\nconfig_files = []\n'
            f'vars = {{ token = {{ from_env = "TOKEN" }} }}\n'
            f'identity_files = ["{end.identity}"]\nknown_hosts = "{end.known_hosts}"\n'
        )
    (tmp_path / "inventory.toml").write_text(text)
    return Cli(tmp_path)


def test_hosts_lists_the_inventory_and_no_secret(cli: Cli) -> None:
    table = cli.run("hosts").stdout.decode().splitlines()
    assert table[0].split() == ["HOST", "URL", "GROUPS", "CAPABILITIES"]
    assert [line.split()[0] for line in table[1:]] == ["web1", "web2"]
    listed = json.loads(cli.run("hosts", "web,!web1", "--json", TOKEN="s3cr3t").stdout)
    assert list(listed["hosts"]) == ["web2"]
    assert "s3cr3t" not in json.dumps(listed)
    assert cli.run("hosts", "--names").stdout == b"web1\nweb\nweb2\n"


def test_an_inventory_that_is_wrong_is_refused_with_its_line(cli: Cli) -> None:
    (cli.home / "bad.toml").write_text('[hosts.a]\nurl = "local:"\ngruops = ["x"]\n')
    done = cli.run("hosts", "-i", "bad.toml")
    assert done.returncode == 2
    assert error_lines(done) == ["opsexec: bad.toml:3: unknown key 'gruops'", '  hint: did you mean "groups"?']
    done = cli.run("hosts", "-i", "missing.toml")
    assert (done.returncode, len(error_lines(done))) == (2, 2)


def test_facts_come_as_lines_or_as_json(cli: Cli) -> None:
    lines = cli.run("facts", "web1", "kernel", "user").stdout.decode().splitlines()
    assert re.fullmatch(r"kernel\.system +Linux", lines[0])
    done = cli.run("facts", "web", "--json", "kernel")
    report = json.loads(done.stdout)
    assert report["hosts"]["web2"]["value"]["kernel"]["system"] == "Linux"
    assert cli.run("facts", "web1", "nonsense").returncode == 2


def test_observations_come_a_line_each_until_the_count_or_ctrl_c(cli: Cli) -> None:
    done = cli.run("observe", "web", "load", "--count", "2", "--interval", "0.1", "--json")
    assert done.returncode == 0
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(sample["host"] for sample in samples) == ["web1", "web1", "web2", "web2"]
    assert all(sample["load"]["load1"] >= 0 for sample in samples)
    with cli.start("observe", "web1", "load", "memory", "disks", "--interval", "0.1") as running:
        assert running.stdout is not None
        line = running.stdout.readline().decode()
        assert re.match(r"\d\d:\d\d:\d\d \| load [0-9.]+ [0-9.]+ [0-9.]+ \| memory .+ of .+ \| disks ", line)
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 130


def test_trees_are_pushed_and_pulled_and_the_changes_are_listed(cli: Cli) -> None:
    require("rsync", "needs rsync")
    (cli.home / "src/sub").mkdir(parents=True)
    (cli.home / "src/sub/file").write_text("one")
    there = cli.home / "there"
    checked = cli.run("push", "web1", "src/", f"{there}/", "--check")
    assert checked.returncode == 0, checked.stderr
    assert b"sub/file" in checked.stdout
    assert b"to make" in checked.stdout
    assert not there.exists()
    assert cli.run("push", "web1", "src/", f"{there}/").returncode == 0
    assert (there / "sub/file").read_text() == "one"
    assert cli.run("push", "web1", "src/", f"{there}/").stdout.startswith(b"no change")
    (there / "extra").write_text("x")
    report = json.loads(cli.run("push", "web1", "src/", f"{there}/", "--delete", "--json").stdout)
    assert report["hosts"]["web1"]["status"] == "changed"
    assert not (there / "extra").exists()
    done = cli.run("pull", "web", f"{there}/", "back", "--exclude", "nothing")
    assert done.returncode == 0, done.stderr
    assert (cli.home / "back/web1/sub/file").read_text() == "one"
    assert (cli.home / "back/web2/sub/file").read_text() == "one"


def test_copying_what_is_not_there_or_not_granted_is_refused(cli: Cli, sshd: Sshd) -> None:
    done = cli.run("push", "web1", "nothing", "/srv/")
    assert (done.returncode, error_lines(done)[0]) == (2, "opsexec: there is no nothing here")
    (cli.home / "src").mkdir()
    before = sshd.connections_accepted()
    done = cli.run("push", "web1", "src", "/srv/x", "--cap", "sync.push:/srv/y/**")
    assert done.returncode == 3
    assert "denied by the caller: needs sync.push:/srv/x" in error_lines(done)[0]
    assert sshd.connections_accepted() == before


def test_audit_verify_is_silent_about_nothing_and_names_the_first_bad_line(cli: Cli) -> None:
    for _ in range(3):
        cli.run("exec", "local:", "--", "true")
    good = cli.run("audit", "verify", "--json")
    head = json.loads(good.stdout)["head"]
    assert (good.returncode, head["seq"]) == (0, 5)
    lines = cli.audit.read_bytes().splitlines(keepends=True)
    cli.audit.write_bytes(b"".join([*lines[:2], lines[2].replace(b'"true"', b'"false"'), *lines[3:]]))
    bad = cli.run("audit", "verify")
    assert bad.returncode == 1
    assert bad.stdout.decode().startswith(f"{cli.audit}:3: the line was changed")
    assert b'"false"' in bad.stdout
    assert "is not whole" in error_lines(bad)[0]
    cli.audit.write_bytes(b"".join(lines[:4]))
    assert cli.run("audit", "verify").returncode == 0
    assert cli.run("audit", "verify", "--head", f"{head['seq']}:{head['hash']}").returncode == 1
    assert cli.run("audit", "verify", "--head", "5").returncode == 2


def test_audit_tail_and_show_tell_what_was_asked_and_how_it_ended(cli: Cli) -> None:
    cli.run("exec", "local:", "--", "sh", "-c", "exit 3")
    allowed, ended = cli.run("audit", "tail").stdout.decode().splitlines()
    assert re.search(r"allow  local  unix:\w+  exec  sh -c 'exit 3'  run [0-9a-f]{16}", allowed)
    assert re.search(r"done  local  exit 3, [0-9.]+ s, 0 B  run [0-9a-f]{16}", ended)
    run = ended.rpartition(" ")[2]
    shown = json.loads(cli.run("audit", "show", run[:8], "--json").stdout)
    assert [record["run"] for record in shown["records"]] == [run, run]
    assert b"outcome.exit_code" in cli.run("audit", "show", run).stdout
    assert cli.run("audit", "show", "ffff").returncode == 1
    assert cli.run("audit", "show", "").returncode == 2  # every id begins with nothing
    assert cli.run("audit", "tail", "nothing.jsonl").returncode == 3
    assert cli.run("audit", "verify", "web1").returncode == 3


@pytest.mark.parametrize(("last", "kinds"), [(9, ["sha256"]), (99_999, ["blake3", "sha256"])])
def test_audit_digest_is_the_one_that_the_audit_has_of_that_output(cli: Cli, last: int, kinds: list[str]) -> None:
    done = cli.run("exec", "local:", "--", "seq", last)
    ended = json.loads(cli.run("audit", "tail", "-n", "1", "--json").stdout)
    said = ended["outcome"]["digest"]
    (cli.home / "out").write_bytes(done.stdout)
    shown = cli.run("audit", "digest", "out").stdout.decode().splitlines()
    assert [line.partition(":")[0] for line in shown] == kinds
    assert shown[0] == f"{said}  out"
    assert (cli.run("audit", "digest", "out", "--is", said).returncode, done.returncode) == (0, 0)
    report = json.loads(cli.run("audit", "digest", "-", "--json", stdin=done.stdout).stdout)
    assert (report["bytes"], report["digests"][0]) == (len(done.stdout), said)
    (cli.home / "out").write_bytes(done.stdout + b"\n")
    other = cli.run("audit", "digest", "out", "--is", said)
    assert (other.returncode, other.stdout) == (1, b"")
    assert error_lines(other)[0].startswith("opsexec: out is not that output: its digests are ")
    assert cli.run("audit", "digest", "out", "--is", said[:-1]).returncode == 2
    missing = cli.run("audit", "digest", "missing")
    assert missing.returncode == 1
    assert error_lines(missing) == [
        "opsexec: missing can't be read: No such file or directory",
        "  hint: name a file that you may read",
    ]


def test_audit_tail_follows_until_ctrl_c(cli: Cli) -> None:
    cli.run("exec", "local:", "--", "true")
    with cli.start("audit", "tail", "-n", "1", "-f", "--json") as running:
        assert running.stdout is not None
        running.stdout.readline()
        cli.run("exec", "local:", "--", "echo", "followed")
        assert json.loads(running.stdout.readline())["step"]["argv"] == ["echo", "followed"]
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 130
        assert running.stderr is not None
        assert running.stderr.read() == b"opsexec: interrupted\n"


def test_runs_lists_and_shows_the_journals_of_runbook_runs(cli: Cli) -> None:
    assert cli.run("runs", "list").returncode == 0
    (cli.home / "book.yaml").write_text(
        "name: book\nhosts: web\nsteps:\n  - exec: [/bin/true]\n  - shell: {action: a, script: exit 4}\n"
    )
    cli.run("run", "book.yaml", TOKEN="s3cr3t-token")
    (run,) = json.loads(cli.run("runs", "list", "--json").stdout)["runs"]
    assert (run["state"], run["name"], set(run["hosts"])) == ("finished", "book", {"web1", "web2"})
    shown = cli.run("runs", "show", run["run"]).stdout.decode()
    assert "shell a" in shown
    assert "failed" in shown
    assert json.loads(cli.run("runs", "show", run["run"], "--json").stdout)["hosts"]["web1"]["steps"]
    assert cli.run("runs", "show", "20250131-235959-0a1b2c").returncode == 2
    for words in (["list", "web1"], ["show", "web1", "x"], ["attach", "web1", "x"], ["kill", "web1", "x"]):
        done = cli.run("runs", *words)
        assert done.returncode == 3
        assert "ops-agent" in error_lines(done)[0]


def test_a_run_that_goes_on_or_was_killed_is_listed_as_such(cli: Cli) -> None:
    (cli.home / "book.yaml").write_text("name: b\nhosts: web1\nsteps:\n  - exec: [/bin/sleep, '60']\n")

    def state() -> str:
        runs = json.loads(cli.run("runs", "list", "--json").stdout)["runs"]
        return str(runs[0]["state"]) if runs else ""

    with cli.start("run", "book.yaml", env={**cli.env, "TOKEN": "s3cr3t-token"}) as running:
        wait_for(lambda: state() == "going on", "run")
        running.kill()
        running.wait(10)
        wait_for(lambda: state() == "broken off", "end of the run")
    run = json.loads(cli.run("runs", "list", "--json").stdout)["runs"][0]["run"]
    assert f"go on with: opsexec run book.yaml --resume {run}" in cli.run("runs", "show", run).stdout.decode()


def test_a_run_that_was_held_back_at_a_gate_is_listed_as_that_with_how_it_goes_on(cli: Cli) -> None:
    (cli.home / "book.yaml").write_text(
        "name: b\nhosts: all\ntiers: [{name: dev, hosts: web1}, {name: prod, hosts: web2, approve: true}]\n"
        "steps:\n  - exec: [/bin/true]\n"
    )
    assert cli.run("run", "book.yaml", stdin=b"", TOKEN="s3cr3t-token").returncode == 3
    (run,) = json.loads(cli.run("runs", "list", "--json").stdout)["runs"]
    assert (run["state"], run["hosts"]) == ("stopped", {"web1": "changed", "web2": "not begun"})
    assert "prod needs approval" in run["stopped"]
    shown = cli.run("runs", "show", run["run"]).stdout.decode().splitlines()
    assert shown[0] == f"run {run['run']}: b, stopped"
    assert shown[-2:] == [f"stopped: {run['stopped']}", f"go on with: opsexec run book.yaml --resume {run['run']}"]
    assert cli.run("run", "book.yaml", "--resume", run["run"], "--yes", TOKEN="s3cr3t-token").returncode == 0
    (run,) = json.loads(cli.run("runs", "list", "--json").stdout)["runs"]
    assert (run["state"], run["stopped"], run["hosts"]["web2"]) == ("finished", None, "changed")


def test_a_check_that_was_broken_off_is_not_said_to_go_on(cli: Cli) -> None:
    (cli.home / "book.yaml").write_text("name: b\nhosts: web1\nsteps:\n  - exec: [/bin/true]\n")
    assert cli.run("run", "book.yaml", "--check", TOKEN="s3cr3t-token").returncode == 0
    run = json.loads(cli.run("runs", "list", "--json").stdout)["runs"][0]["run"]
    (journal,) = cli.home.rglob(f"{run}.jsonl")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    shown = cli.run("runs", "show", run).stdout.decode()
    assert "broken off (a check)" in shown
    assert "go on" not in shown


def test_schema_and_actions_are_what_scripts_read(cli: Cli) -> None:
    for name in ("runbook", "inventory", "agent-config"):
        assert json.loads(cli.run("schema", name).stdout)["$schema"].startswith("https://json-schema.org/")
    assert cli.run("schema", "nonsense").returncode == 2
    assert json.loads(cli.run("actions", "--json").stdout)["exec"]["resource"] == "argv"
    assert b"fs.write" in cli.run("actions").stdout
