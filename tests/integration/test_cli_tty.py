"""`opsexec tty` on a real terminal, over a real sshd and on this machine; and the recording it makes."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator

import pytest

from opsexec.safe_screen import SafeScreen
from tests.conftest import require
from tests.integration.cli_runs import Cli, error_lines, login, sleeping, unique_sleep, wait_for
from tests.integration.cli_terminal import Person, at_terminal
from tests.parts.sshd import Sshd, find_sshd

SECONDS = itertools.count()
SHELL = ["--", "/bin/bash", "--norc", "--noprofile"]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    require(find_sshd() is not None, "needs sshd")
    with Sshd(listen=["127.0.0.66"]) as server:
        yield server


@pytest.fixture(params=["ssh", "local"])
def host(request, sshd: Sshd) -> list[str]:
    end = sshd.endpoint()
    return [end.url, *login(end)] if request.param == "ssh" else ["local:"]


@pytest.fixture
def cli(tmp_path) -> Cli:
    return Cli(tmp_path)


def ask(person: Person, command: str, answer: str) -> str:
    """Type a command; what it prints must match `answer` on a line of its own."""
    person.types(command + "\r")
    return person.sees(f"(?:[\r\n]|# ){answer}\r\n")[0].decode(errors="replace")


def test_a_person_has_a_terminal_whose_size_follows_their_own(cli: Cli, host: list[str]) -> None:
    with at_terminal(cli, "tty", *host, *SHELL, columns=97, rows=31) as person:
        before = person.settings()
        ask(person, "stty size", "31 97")
        person.resizes(120, 40)
        wait_for(lambda: _size_is(person, "40 120"), "the new size")
        ask(person, "echo $TERM; test -t 0 -a -t 1 -a -t 2 && echo all", "xterm\r\nall")
        person.types("exit\r")
        assert person.leaves() == 0
        assert person.settings() == before


def _size_is(person: Person, size: str) -> bool:
    """Just after a resize, readline may draw the prompt and the command once more before the answer, on its line."""
    person.types("stty size\r")
    return size in person.sees("[0-9]+ [0-9]+\r\n")[0].decode()


def test_ctrl_c_interrupts_what_runs_there_and_not_the_shell(cli: Cli, host: list[str]) -> None:
    seconds = unique_sleep(SECONDS)
    with at_terminal(cli, "tty", *host, *SHELL) as person:
        person.types(f"sleep {seconds}\r")
        wait_for(lambda: sleeping(seconds), "program")
        person.types("\x03")
        wait_for(lambda: not sleeping(seconds), "end of the program")
        ask(person, "echo status $?", "status 130")
        person.types("\x04")
        assert person.leaves() == 0


def test_the_programs_status_is_told_and_comes_to_exit_1(cli: Cli, host: list[str]) -> None:
    with at_terminal(cli, "tty", *host, "--", "sh", "-c", "exit 5") as person:
        assert person.leaves() == 1
        assert b"exit status 5" in person.screen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_terminal_that_is_cut_ends_its_tree_and_is_put_back(cli: Cli, host: list[str], number: int) -> None:
    seconds = unique_sleep(SECONDS)
    with at_terminal(cli, "tty", *host, *SHELL) as person:
        before = person.settings()
        person.types(f"printf '\\033[?1049h\\033[?25l'; nohup setsid sleep {seconds} & sleep {seconds}\r")
        wait_for(lambda: len(sleeping(seconds)) == 2, "programs")
        person.sees(r"\x1b\[\?25l")
        person.process.send_signal(number)
        assert person.leaves() == 128 + number
        assert sleeping(seconds) == []
        assert person.settings() == before
        assert person.screen.count(b"\x1b[?1049l") == 1
        assert b"\x1b[?25h" in person.screen


def test_a_caller_that_is_killed_leaves_nothing_running(cli: Cli, host: list[str]) -> None:
    seconds = unique_sleep(SECONDS)
    with at_terminal(cli, "tty", *host, *SHELL) as person:
        person.types(f"sleep {seconds}\r")
        wait_for(lambda: sleeping(seconds), "program")
        person.process.kill()
        wait_for(lambda: not sleeping(seconds), "end of the program", 3)


def test_a_connection_that_is_cut_ends_the_terminal_with_a_sentence(cli: Cli, sshd: Sshd) -> None:
    seconds = unique_sleep(SECONDS)
    end = sshd.endpoint()
    with at_terminal(cli, "tty", end.url, *login(end), *SHELL) as person:
        before = person.settings()
        person.types(f"sleep {seconds}\r")
        wait_for(lambda: sleeping(seconds), "program")
        sshd.kill_connections()
        assert person.leaves() == 3
        assert b"the connection was lost" in person.screen
        assert person.settings() == before
        wait_for(lambda: not sleeping(seconds), "end of the program", 3)


def test_a_terminal_window_that_is_closed_ends_the_tree_quietly(cli: Cli, host: list[str]) -> None:
    seconds = unique_sleep(SECONDS)
    with at_terminal(cli, "tty", *host, *SHELL) as person:
        person.types(f"sleep {seconds}\r")
        wait_for(lambda: sleeping(seconds), "program")
        person.closes_the_window()
        assert person.process.wait(10) == 129
        assert sleeping(seconds) == []
    assert not list(cli.home.glob("**/crash-*"))


def test_tilde_dot_leaves_a_terminal_that_answers_no_more(cli: Cli, host: list[str]) -> None:
    seconds = unique_sleep(SECONDS)
    with at_terminal(cli, "tty", *host, "--", "/bin/sh", "-c", f"trap '' INT HUP; echo up; sleep {seconds}") as person:
        person.sees("up\r\n")
        wait_for(lambda: sleeping(seconds), "program")
        person.types("\r~.")
        assert person.leaves() == 1
        assert sleeping(seconds) == []


def test_without_a_program_it_is_the_login_shell(cli: Cli, host: list[str]) -> None:
    with at_terminal(cli, "tty", *host) as person:
        ask(person, "echo shell=$0", "shell=(/bin/bash|-bash|/bin/sh)")
        person.types("exit\r")
        assert person.leaves() == 0
    with at_terminal(cli, "tty", *host, "--cap", "tty:/bin/sh -l") as person:
        person.sees("facts:user isn't granted, which says what the login shell is: this is /bin/sh")
        ask(person, "echo shell=$0", "shell=/bin/sh")
        person.types("exit\r")
        assert person.leaves() == 0


def test_a_login_shell_that_nobody_may_ask_for_is_what_a_denial_names(cli: Cli) -> None:
    with at_terminal(cli, "tty", "local:", "--cap", "tty:/bin/bash -l") as person:
        assert person.leaves() == 3
        assert b"denied by the caller: needs tty:/bin/sh -l" in person.screen
        assert b"hint: facts:user isn't granted" in person.screen


def test_a_denied_program_opens_no_terminal(cli: Cli, host: list[str]) -> None:
    with at_terminal(cli, "tty", *host, "--cap", "tty:/usr/bin/top", *SHELL) as person:
        assert person.leaves() == 3
        assert b"denied by the caller: needs tty:/bin/bash" in person.screen


def test_without_a_terminal_it_is_refused(cli: Cli) -> None:
    done = cli.run("tty", "local:")
    assert (done.returncode, len(error_lines(done))) == (2, 2)
    assert "tty needs a terminal" in error_lines(done)[0]


def test_a_lot_of_output_comes_whole_and_its_end_is_not_lost(cli: Cli, host: list[str]) -> None:
    with at_terminal(cli, "tty", *host, "--", "sh", "-c", "seq 200000; echo the-end") as person:
        person.sees("\r\n199999\r\n200000\r\nthe-end\r\n")
        assert person.leaves() == 0


def test_the_end_of_every_terminal_is_in_the_audit(cli: Cli, host: list[str]) -> None:
    with at_terminal(cli, "tty", *host, "--", "/bin/sh", "-c", "exit 3") as person:
        person.leaves()
    records = [json.loads(line) for line in cli.audit.read_text().splitlines()]
    allowed, ended = records[-2:]
    assert (allowed["decision"], allowed["step"]["type"]) == ("allow", "tty")
    assert (ended["run"], ended["outcome"]["exit_code"]) == (allowed["run"], 3)


def test_a_recording_holds_the_screen_and_never_the_keys(cli: Cli, host: list[str]) -> None:
    with at_terminal(cli, "tty", *host, "--record", "a.cast", *SHELL, columns=70, rows=20) as person:
        ask(person, r"printf '\303\244 \377 end\n'", r"\xc3\xa4 \xff end")
        ask(person, "stty -echo; echo ready; read -r word; stty echo; echo got ${#word}", "ready")
        person.types("hunter2\r")
        person.sees("got 7\r\n")
        person.resizes(71, 21)
        wait_for(lambda: _size_is(person, "21 71"), "the new size")
        person.types("exit 4\r")
        assert person.leaves() == 1
    lines = [json.loads(line) for line in (cli.home / "a.cast").read_text(encoding="utf-8").splitlines()]
    header, events = lines[0], lines[1:]
    assert (header["version"], header["term"]) == (3, {"cols": 70, "rows": 20, "type": "xterm"})
    screen = "".join(text for _, code, text in events if code == "o")
    assert "ä � end\r\n" in screen
    assert "hunter2" not in (cli.home / "a.cast").read_text()
    assert [text for _, code, text in events if code == "r"] == ["71x21"]
    assert events[-1][1:] == ["x", "4"]
    assert all(interval >= 0 for interval, _, _ in events)
    assert (cli.home / "a.cast").stat().st_mode & 0o777 == 0o600
    shown = cli.run("replay", "a.cast", "--speed", "100", "--idle", "0.01")
    assert shown.returncode == 0
    assert shown.stdout == SafeScreen().pass_on(screen.encode())


def test_a_recording_is_shown_or_told_as_json_and_not_both(cli: Cli) -> None:
    done = cli.run("replay", "session.cast", "--json")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--json goes with --verify" in done.stderr


@pytest.mark.parametrize(
    ("words", "status"), [(["--cap", "tty:/usr/bin/top", *SHELL], 3), (["--", "/no/such/program"], 1)]
)
def test_a_terminal_that_never_opened_leaves_no_recording(
    words: list[str], status: int, cli: Cli, host: list[str]
) -> None:
    with at_terminal(cli, "tty", *host, "--record", "a.cast", *words) as person:
        assert person.leaves() == status
    assert not (cli.home / "a.cast").exists()


def test_a_recording_that_exists_is_not_overwritten(cli: Cli, host: list[str]) -> None:
    (cli.home / "a.cast").write_text("mine")
    with at_terminal(cli, "tty", *host, "--record", "a.cast", *SHELL) as person:
        assert person.leaves() == 2
        assert b"a.cast exists" in person.screen
    assert (cli.home / "a.cast").read_text() == "mine"
