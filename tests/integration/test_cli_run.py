"""`opsexec run` over a real sshd: exit codes, resuming, approval, interruption."""

from __future__ import annotations

import itertools
import json
import re
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.integration.cli_runs import Cli, error_lines, sleeping, unique_sleep, wait_for
from tests.integration.cli_terminal import at_terminal
from tests.parts.sshd import Sshd, find_sshd

SECONDS = itertools.count()


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    require(find_sshd() is not None, "needs sshd")
    with Sshd(listen=["127.0.0.64", "127.0.0.65"]) as server:
        yield server


@pytest.fixture
def cli(tmp_path, sshd: Sshd) -> Cli:
    """A Cli whose inventory names dev1 and prod1."""
    text = ""
    for name, end in zip(("dev1", "prod1"), sshd.endpoints, strict=True):
        text += (
            f'[hosts.{name}]\nurl = "{end.url}"\nvars = {{ tier = "{name[:-1]}" }}\nconfig_files = []\n'
            f'identity_files = ["{end.identity}"]\nknown_hosts = "{end.known_hosts}"\n'
        )
    (tmp_path / "inventory.toml").write_text(text)
    return Cli(tmp_path)


def write(cli: Cli, steps: str, head: str = "") -> None:
    (cli.home / "book.yaml").write_text(f"name: book\nhosts: all\n{head}steps:\n{steps}")


def test_a_runbook_runs_on_its_hosts_and_says_what_changed(cli: Cli) -> None:
    write(cli, f'  - write: {{ path: "{cli.home}/made-${{host}}", content: hi }}\n')
    checked = cli.run("run", "book.yaml", "--check", "--diff")
    assert checked.returncode == 0, checked.stderr
    assert b"+hi" in checked.stdout
    assert not (cli.home / "made-dev1").exists()
    done = cli.run("run", "book.yaml", "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["totals"]["changed"] == 2
    assert report["hosts"]["dev1"]["steps"][0]["status"] == "changed"
    again = json.loads(cli.run("run", "book.yaml", "--json").stdout)
    assert again["totals"] == {"ok": 2, "changed": 0, "skipped": 0, "failed": 0, "unreachable": 0}


def test_limit_tags_and_variables_narrow_a_run(cli: Cli) -> None:
    write(
        cli,
        '  - shell: { action: say, script: "echo $word" }\n    tags: [say]\n  - exec: [/bin/false]\n',
        head="vars: { word: none }\n",
    )
    done = cli.run("run", "book.yaml", "--limit", "&prod", "--tags", "say", "--var", "word=a=b", "--json")
    assert done.returncode == 0, done.stderr
    (name,) = hosts = json.loads(done.stdout)["hosts"]
    assert name == "prod1"
    assert hosts[name]["steps"][0]["stdout_tail"] == "a=b\n"


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("name: x\nhosts: all\nsteps:\n  - exce: [a]\n", "book.yaml:4: unknown key 'exce'", "'exec'"),
        ("name: x\nhosts: nobody\nsteps:\n  - exec: [a]\n", "no host or group matches 'nobody'", ""),
        ("name: x\nhosts: all\nsteps: []\n", "1 to 2000 steps", None),
        ("- a\n", "book.yaml:1", None),
    ],
)
def test_a_wrong_runbook_is_refused_with_its_line_and_exit_2(cli: Cli, text, sentence, hint) -> None:
    (cli.home / "book.yaml").write_text(text)
    done = cli.run("run", "book.yaml")
    assert done.returncode == 2
    said = error_lines(done)
    assert sentence in said[0]
    assert hint is None or hint in said[1]


def test_a_step_outside_the_runbooks_capabilities_never_opens_a_connection(cli: Cli, sshd: Sshd) -> None:
    before = sshd.connections_accepted()
    write(cli, "  - exec: [/usr/bin/id]\n", head='capabilities: ["exec:/usr/bin/uptime"]\n')
    done = cli.run("run", "book.yaml")
    assert done.returncode == 3
    assert "denied by the runbook: needs exec:/usr/bin/id" in error_lines(done)[0]
    assert sshd.connections_accepted() == before


def test_a_failed_run_exits_1_and_is_resumed_after_its_last_good_step(cli: Cli) -> None:
    mark = cli.home / "fixed"
    write(
        cli,
        f'  - shell: {{ action: count, script: "echo x >> {cli.home}/count-$host" }}\n'
        f"  - exec: [/usr/bin/test, -e, {mark}]\n",
    )
    done = cli.run("run", "book.yaml")
    assert done.returncode == 1
    run = re.search(rb"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}", done.stdout)
    assert run is not None
    mark.write_text("")
    assert cli.run("run", "book.yaml", "--resume", run[0].decode()).returncode == 0
    assert sum(p.read_text().count("x") for p in cli.home.glob("count-*")) == 2


def test_a_tier_that_needs_approval_stops_where_nobody_can_be_asked(cli: Cli) -> None:
    write(cli, "  - exec: [/bin/true]\n", head='tiers: [{hosts: "&dev"}, {hosts: "&prod", approve: true}]\n')
    done = cli.run("run", "book.yaml", "--json")
    assert done.returncode == 3
    totals = json.loads(done.stdout)["totals"]
    assert (totals["changed"], totals["skipped"]) == (1, 1)
    assert cli.run("run", "book.yaml", "--yes").returncode == 0


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 3)])
def test_a_person_at_the_terminal_is_asked(cli: Cli, answer: str, code: int) -> None:
    write(cli, "  - exec: [/bin/true]\n", head='tiers: [{hosts: "&dev"}, {hosts: "&prod", approve: true}]\n')
    with at_terminal(cli, "run", "book.yaml") as person:
        person.sees(r"So far: 1 changed. Go on with tier prod \(prod1\)\? \[y/N\] ")
        person.types(answer)
        assert person.leaves() == code


def test_ctrl_c_at_the_question_stops_the_run_at_once(cli: Cli) -> None:
    write(cli, "  - exec: [/bin/true]\n", head='tiers: [{hosts: "&dev"}, {hosts: "&prod", approve: true}]\n')
    with at_terminal(cli, "run", "book.yaml") as person:
        person.sees(r"\[y/N\] ")
        person.types("\x03")
        assert person.leaves(5) == 130
        assert b"Traceback" not in person.screen


def test_ctrl_c_at_a_secrets_prompt_ends_it_and_restores_the_echo(cli: Cli) -> None:
    write(cli, "  - exec: [/bin/true]\n", head='vars: { token: { prompt: "Token" } }\n')
    with at_terminal(cli, "run", "book.yaml") as person:
        before = person.settings()
        person.sees("Token: ")
        person.types("\x03")
        assert person.leaves(5) == 130
        assert b"Traceback" not in person.screen
        assert person.settings() == before


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_ends_the_step_under_way_and_the_run_can_be_resumed(cli: Cli, flags: list[str]) -> None:
    seconds = unique_sleep(SECONDS)
    mark = cli.home / "go"
    script = f"test -e {mark} || exec sleep {seconds}"
    write(cli, f'  - exec: [/bin/true]\n  - shell: {{ action: wait, script: "{script}" }}\n')
    with cli.start("run", "book.yaml", *flags) as running:
        wait_for(lambda: len(sleeping(seconds)) == 2, "step on both hosts")
        running.send_signal(signal.SIGINT)
        out, said = running.communicate(timeout=10)
    assert running.returncode == 130
    assert b"Traceback" not in said
    assert sleeping(seconds) == []
    if flags:
        run = json.loads(out)["run"]
    else:
        match = re.search(rb"--resume ([0-9a-f-]+)", out)
        assert match is not None
        run = match[1].decode()
    mark.write_text("")
    assert cli.run("run", "book.yaml", "--resume", run).returncode == 0


def test_the_reader_of_the_progress_may_go_away(cli: Cli) -> None:
    write(cli, "  - exec: [/bin/true]\n" * 30)
    with cli.start("run", "book.yaml") as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr is not None
        said = running.stderr.read()
        assert running.wait(20) == 141
    assert said == b""


def test_caps_lists_what_an_inventory_must_grant_and_contacts_nobody(cli: Cli, sshd: Sshd) -> None:
    before = sshd.connections_accepted()
    write(cli, "  - exec: [/usr/bin/id]\n    run_as: bob\n  - write: { path: /srv/x, content: a }\n")
    assert cli.run("caps", "book.yaml").stdout == b"exec:/usr/bin/id\nfs.write:/srv/x\nrun_as:bob\n"
    assert json.loads(cli.run("caps", "book.yaml", "--json").stdout) == {
        "capabilities": ["exec:/usr/bin/id", "fs.write:/srv/x"],
        "run_as": ["bob"],
    }
    assert sshd.connections_accepted() == before


def test_a_pager_that_is_not_scrolled_does_not_stop_the_run(cli: Cli) -> None:
    mark = cli.home / "finished"
    many = "".join(f'  - name: "{"x" * 3000}"\n    exec: [/bin/true]\n' for _ in range(40))
    write(cli, many + f"  - exec: [/usr/bin/touch, {mark}]\n")
    with cli.start("run", "book.yaml", "--limit", "dev1") as running:
        wait_for(mark.exists, "last step", 20)  # 120 kB of progress, of which the pipe holds 64
        out, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert out.count(b"x" * 3000) == 40
