"""Terminals at an agent, from the command line: opened, watched, listed, replayed, verified, approved and ended."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.cli_runs import ROOT, Cli, error_lines, sleeping, wait_for
from tests.integration.cli_terminal import Person, at_terminal, on_terminal
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.unix_user import current_user

ME = f"unix:{current_user()}"
CAT = ["--", "/bin/cat"]
PAUSE_S = 60
"""Longer than the command takes on any machine: a replay that skips it is told from one that waits."""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def the_run(agent: OpsAgent) -> str:
    """The run of the newest recording."""
    newest = max((agent.state / "recordings").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return newest.stem


@pytest.fixture
def recorded(cli: Cli, ops_agent: OpsAgent) -> str:
    """The run of a terminal that has ended: two words, a second apart."""
    with at_terminal(
        cli, "tty", ops_agent.url, "--", "sh", "-c", "printf 'one\\033]52;c;eA==\\007'; sleep 1; echo two"
    ):
        wait_for(lambda: _ended(ops_agent), "the end of the terminal")
    return the_run(ops_agent)


def _ended(agent: OpsAgent) -> bool:
    try:
        text = (agent.state / "recordings" / f"{the_run(agent)}.cast").read_text()
        return "two" in text and '"x","0"' in text
    except (FileNotFoundError, ValueError):
        return False


def test_a_terminal_is_watched_on_another_and_left_as_it_was(cli: Cli, ops_agent: OpsAgent) -> None:
    with at_terminal(cli, "tty", ops_agent.url, *CAT) as person:
        person.types("hello\r")
        person.sees("hello\r\nhello\r\n")
        run = the_run(ops_agent)
        listed = cli.run("tty", ops_agent.url, "--list")
        assert re.search(rf"{run}\s+{ME}\s+open", listed.stdout.decode())
        with at_terminal(cli, "tty", ops_agent.url, "--watch", run, columns=60, rows=10) as watcher:
            before = watcher.settings()
            watcher.sees("has 90x30 characters, this one has 60x10")
            watcher.sees("hello\r\nhello\r\n")
            watcher.types("never typed there\r")
            person.types("more\r")
            watcher.sees("more\r\nmore\r\n")
            assert b"never" not in watcher.screen
            watcher.types("q")
            assert watcher.leaves() == 0
            assert watcher.settings() == before
        with at_terminal(cli, "tty", ops_agent.url, "--watch", run) as watcher:
            watcher.sees("more\r\nmore\r\n")
            person.types("\x04")
            assert person.leaves() == 0
            watcher.sees("the terminal has ended with status 0")
            assert watcher.leaves() == 0


def test_a_hosts_recording_is_replayed_from_anywhere_and_steers_nothing(
    cli: Cli, ops_agent: OpsAgent, recorded: str
) -> None:
    begun = time.monotonic()
    shown = cli.run("replay", ops_agent.url, recorded)
    assert (shown.returncode, shown.stdout) == (0, b"onetwo\r\n")
    assert time.monotonic() - begun > 1
    with drawn_out(ops_agent.state / "recordings" / f"{recorded}.cast"):
        for options in (("--from", "1:30"), ("--speed", "1000"), ("--max-idle", "0.01")):
            begun = time.monotonic()
            assert cli.run("replay", ops_agent.url, recorded, *options).stdout == b"onetwo\r\n"
            assert time.monotonic() - begun < PAUSE_S


@contextmanager
def drawn_out(recording: Path) -> Iterator[None]:
    """Let PAUSE_S pass before the second word, for as long as this lasts."""
    kept = recording.read_text()
    (second,) = [line for line in kept.splitlines()[1:] if "two" in line]
    recording.write_text(kept.replace(second, json.dumps([PAUSE_S, *json.loads(second)[1:]])))
    try:
        yield
    finally:
        recording.write_text(kept)


def test_a_recording_is_verified_and_a_forged_one_found_out(cli: Cli, ops_agent: OpsAgent, recorded: str) -> None:
    done = cli.run("replay", ops_agent.url, recorded, "--verify")
    assert done.returncode == 0
    assert b"whole and unchanged" in done.stdout
    assert json.loads(cli.run("replay", ops_agent.url, recorded, "--verify", "--json").stdout)["complete"] is True
    kept = cli.home / "kept.cast"
    assert cli.run("replay", ops_agent.url, recorded, "--verify", "--save", kept).returncode == 0
    assert kept.stat().st_mode & 0o777 == 0o600
    log = ops_agent.state / "audit.jsonl"
    assert cli.run("replay", kept, "--verify", "--audit", log).returncode == 0
    assert cli.run("replay", kept, "--verify").returncode == 2
    good = kept.read_bytes()
    kept.write_bytes(good.replace(b"two", b"TWO"))
    forged = cli.run("replay", kept, "--verify", "--audit", log)
    assert forged.returncode == 1
    assert "something before this line was changed" in error_lines(forged)[0]
    kept.write_bytes(b"".join(good.splitlines(keepends=True)[:2]))
    assert "cut off" in error_lines(cli.run("replay", kept, "--verify", "--audit", log))[0]
    host = ops_agent.state / "recordings" / f"{recorded}.cast"
    host.write_bytes(host.read_bytes().replace(b"two", b"TWO"))
    assert cli.run("replay", ops_agent.url, recorded, "--verify").returncode == 1


def test_what_goes_only_with_an_agent_says_so(cli: Cli, ops_agent: OpsAgent) -> None:
    for words in (
        ("tty", "local:", "--list"),
        ("tty", "local:", "--watch", "some-run-id"),
        ("replay", "local:", "a-run-id"),
    ):
        done = cli.run(*words)
        assert done.returncode == 2
        assert "ops-agent alone" in error_lines(done)[0]
    assert cli.run("tty", ops_agent.url, "--watch", "some-run-id", "--record", "x").returncode == 2


# -- the person on the host -----------------------------------------------------------------------------------------


@pytest.fixture
def asking(plain_user: str) -> Iterator[OpsAgent]:
    """An agent where this user answers for terminals of a plain one."""
    grants = [
        {"principal": f"unix:{plain_user}", "capabilities": EVERYTHING, "consent": "ask"},
        {"principal": ME, "capabilities": ["facts:*"]},
    ]
    with OpsAgent(grants, mode="0666", tables=f'[consent]\nusers = ["{ME}"]\ntimeout_s = 30') as running:
        yield running


def ops_agent_command(cli: Cli, agent: OpsAgent, *words: str) -> list[str]:
    return [sys.executable, "-m", "agent", *words, "--url", agent.url]


def test_the_person_on_the_host_is_asked_approves_watches_and_ends_it(
    cli: Cli, asking: OpsAgent, plain_user: str
) -> None:
    script = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
    script += "s.sendall(sys.stdin.buffer.read()); sys.stdout.write(repr(s.recv(4096))); time.sleep(20)"
    argv = ["runuser", "-u", plain_user, "--", "/usr/bin/python3", "-I", "-c", script, str(asking.socket)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as caller:
        assert caller.stdin is not None
        with caller.stdin:
            caller.stdin.write(_request())
        waiting = ops_agent_command(cli, asking, "consent", "--wait")
        asked = subprocess.run(waiting, env=cli.env, capture_output=True, check=True, timeout=30).stdout.decode()
        assert f"unix:{plain_user} asks for a terminal:" in asked
        assert "\x1b" not in asked
        assert "\\u001b[2J" in asked
        assert not sleeping("67.0301")
        approve = ops_agent_command(cli, asking, "approve", "asked-for-by-hand", "--watch")
        with on_terminal(approve, cwd=ROOT, env=cli.env) as person:
            _ends_it(cli, asking, person)
        caller.kill()


def _ends_it(cli: Cli, agent: OpsAgent, person: Person) -> None:
    person.sees("up\r\n")
    wait_for(lambda: sleeping("67.0301"), "the program")
    ended = ops_agent_command(cli, agent, "end", "asked-for-by-hand")
    assert subprocess.run(ended, env=cli.env, check=False, timeout=30).returncode == 0
    assert not sleeping("67.0301")
    person.sees("the terminal has ended")
    assert person.leaves() == 0


def _request() -> bytes:
    """A terminal asked for by hand, whose argv would clear the screen of who reads it raw."""
    from opsexec import Tty
    from opsexec.hosts.agent_exchange import request_head
    from opsexec.hosts.agent_http import chunk
    from opsexec.wire import encode_request

    step = Tty(argv=("/bin/sh", "-c", "echo up; sleep 67.0301", "\x1b[2J"))
    request = encode_request(step, run="asked-for-by-hand", streams_stdin=True)
    return request_head("POST", "/v1/tty", None) + chunk(request)
