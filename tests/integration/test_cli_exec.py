"""`opsexec exec` and `shell` over a real sshd, judged by what a person and a script see of them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.cli_runs import Cli, error_lines, login, sleeping, unique_sleep, wait_for
from tests.parts.sshd import Endpoint, Sshd, find_sshd

SECONDS = itertools.count()


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    require(find_sshd() is not None, "needs sshd")
    with Sshd(listen=["127.0.0.61", "127.0.0.62"]) as server:
        yield server


@pytest.fixture
def web1(sshd: Sshd) -> Endpoint:
    return sshd.endpoint()


@pytest.fixture
def cli(tmp_path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def inventory(cli: Cli, sshd: Sshd) -> Cli:
    """A Cli whose inventory names web1, web2 (which may only run printf) and dead (nobody answers there)."""
    one, two = sshd.endpoints
    common = f'identity_files = ["{one.identity}"]\nknown_hosts = "{one.known_hosts}"\nconfig_files = []\n'
    (cli.home / "inventory.toml").write_text(
        f'[hosts.web1]\nurl = "{one.url}"\ngroups = ["web"]\n{common}'
        f'[hosts.web2]\nurl = "{two.url}"\ngroups = ["web"]\n{common}'
        'capabilities = ["exec:/usr/bin/printf **"]\n'
        f'[hosts.dead]\nurl = "ssh://127.0.0.1:1"\n{common}'
    )
    return cli


def test_one_hosts_output_is_the_commands_own_byte_for_byte(cli: Cli, web1: Endpoint) -> None:
    script = r"printf 'a\377\0b'; printf 'oops\n' >&2"
    done = cli.run("exec", web1.url, *login(web1), "--", "sh", "-c", script)
    assert done.stdout == b"a\xff\0b"
    assert done.stderr == b"oops\n"
    assert done.returncode == 0


def test_what_is_piped_in_reaches_the_program_and_a_large_output_comes_whole(cli: Cli, web1: Endpoint) -> None:
    data = os.urandom(3 << 20)
    done = cli.run("exec", web1.url, *login(web1), "--", "cat", stdin=data)
    assert done.stdout == data
    assert done.returncode == 0


def test_a_local_program_gets_what_is_piped_in_too(cli: Cli) -> None:
    assert cli.run("exec", "local:", "--", "tr", "a-z", "A-Z", stdin=b"loud").stdout == b"LOUD"
    assert cli.run("exec", "local:", "--no-stdin", "--", "cat", stdin=b"unread").stdout == b""


def test_a_failing_program_exits_1_and_its_own_status_stands_on_stderr(cli: Cli, web1: Endpoint) -> None:
    done = cli.run("exec", web1.url, *login(web1), "--", "sh", "-c", "exit 7")
    assert done.returncode == 1
    assert error_lines(done) == [f"opsexec: {web1.url}: exit status 7"]
    done = cli.run("exec", "local:", "--", "sh", "-c", "kill -9 $$")
    assert (done.returncode, error_lines(done)) == (1, ["opsexec: local: ended by SIGKILL"])


def test_json_is_one_object_with_the_programs_status_and_output(cli: Cli, web1: Endpoint) -> None:
    done = cli.run("exec", web1.url, *login(web1), "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.returncode == 1
    assert error_lines(done) == []
    report = json.loads(done.stdout)
    host = report["hosts"][web1.url]
    assert (host["status"], host["exit_code"], host["signal"]) == ("failed", 3, None)
    assert (host["stdout"], host["stderr"], host["error"]) == ("out\n", "err\n", None)
    assert report["totals"]["failed"] == 1


def test_a_pattern_runs_on_every_host_and_each_line_carries_its_name(inventory: Cli) -> None:
    done = inventory.run("exec", "web", "--", "printf", r"one\ntwo")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [b"web1 | one", b"web1 | two", b"web2 | one", b"web2 | two"]


def test_hosts_that_cannot_run_it_do_not_stop_the_others(inventory: Cli) -> None:
    done = inventory.run("exec", "all", "--", "echo", "hi")
    said = "\n".join(error_lines(done))
    assert done.stdout == b"web1 | hi\n"
    assert done.returncode == 3
    assert "web2: denied by the caller: needs exec:echo hi" in said
    assert "dead: can't connect: Connection refused" in said
    report = json.loads(inventory.run("exec", "all", "--json", "--", "echo", "hi").stdout)
    assert {name: host["status"] for name, host in report["hosts"].items()} == {
        "web1": "changed",
        "web2": "failed",
        "dead": "unreachable",
    }
    assert report["hosts"]["web2"]["error"]["code"] == "denied"


def test_environment_directory_user_and_secret_reach_the_program(cli: Cli, web1: Endpoint) -> None:
    words = ["--env", "A=b=c", "--env-secret", "TOKEN", "--cwd", "/usr", "--as", "nobody"]
    script = 'echo "$A $TOKEN $PWD $(id -un)"'
    done = cli.run("exec", web1.url, *login(web1), *words, "--", "sh", "-c", script, TOKEN="s3cr3t")
    assert done.stdout == b"b=c s3cr3t /usr nobody\n", done.stderr
    assert b"s3cr3t" not in cli.audit.read_bytes()


def test_a_secret_that_is_not_set_is_a_usage_error(cli: Cli) -> None:
    done = cli.run("exec", "local:", "--env-secret", "NOPE", "--", "true")
    assert (done.returncode, error_lines(done)[1]) == (2, "  hint: export NOPE first")


def test_check_runs_nothing(cli: Cli, tmp_path) -> None:
    done = cli.run("exec", "local:", "--check", "--", "touch", tmp_path / "made")
    assert done.returncode == 0
    assert error_lines(done) == ["opsexec: local: skipped: check mode: programs are not run"]
    assert not (tmp_path / "made").exists()


def test_a_deadline_ends_the_program_and_exits_1(cli: Cli, web1: Endpoint) -> None:
    seconds = unique_sleep(SECONDS)
    begun = time.monotonic()
    done = cli.run("exec", web1.url, *login(web1), "--timeout", "0.5", "--", "sleep", seconds)
    assert done.returncode == 1
    assert "no end after 0.5 s; its process tree was ended" in error_lines(done)[0]
    assert time.monotonic() - begun < 10
    assert sleeping(seconds) == []


def test_a_script_runs_as_a_named_action_from_a_file_a_pipe_or_the_command_line(cli: Cli, web1: Endpoint) -> None:
    (cli.home / "s.sh").write_text('echo "file $WHO"')
    base = ["shell", web1.url, *login(web1), "--action", "test.say", "--env", "WHO=me"]
    assert cli.run(*base, "s.sh").stdout == b"file me\n"
    assert cli.run(*base, "-", stdin=b'echo "pipe $WHO"').stdout == b"pipe me\n"
    assert cli.run(*base, "-c", 'echo "text $WHO"; cat', stdin=b"in").stdout == b"text me\nin"


def test_a_script_that_was_changed_since_it_was_pinned_is_refused(cli: Cli) -> None:
    done = cli.run("shell", "local:", "--action", "a", "--sha256", "0" * 64, "-c", "true")
    assert done.returncode == 2
    assert "not 000" in error_lines(done)[0]
    done = cli.run("shell", "local:", "--action", "a", "missing.sh")
    assert (done.returncode, error_lines(done)[1]) == (
        2,
        "  hint: SCRIPT is a file; with -c it is the text itself",
    )


def test_a_denied_program_never_opens_the_connection(cli: Cli, sshd: Sshd, web1: Endpoint) -> None:
    before = sshd.connections_accepted()
    done = cli.run("exec", web1.url, *login(web1), "--cap", "exec:/bin/ls", "--", "uptime")
    assert done.returncode == 3
    sentence, hint = error_lines(done)
    assert sentence == f"opsexec: {web1.url}: denied by the caller: needs exec:uptime, held: exec:/bin/ls"
    assert hint.startswith("  hint: grant")
    assert sshd.connections_accepted() == before
    assert b'"deny"' in cli.audit.read_bytes()


@pytest.mark.parametrize(
    ("host", "code", "sentence", "hint"),
    [
        ("ssh://nohost.invalid", 3, "unknown host name", "check the name"),
        ("ssh://127.0.0.1:1", 3, "can't connect: Connection refused", "is sshd listening there?"),
        ("web1", 2, "'web1' names no host: there is no inventory", "ssh://web1"),
        ("shs://web1", 2, "unknown scheme 'shs'", "did you mean ssh:?"),
        ("local:", 1, "no such program: nosuchprogram", "install it"),
    ],
)
def test_a_host_that_is_not_there_is_one_sentence_and_a_hint(cli: Cli, host, code, sentence, hint) -> None:
    done = cli.run("exec", host, "-F", "/dev/null", "--", "nosuchprogram")
    said = error_lines(done)
    assert done.returncode == code
    assert len(said) == 2
    assert sentence in said[0]
    assert hint in said[1]


def test_a_misspelt_host_is_answered_with_the_nearest_one(inventory: Cli) -> None:
    done = inventory.run("exec", "wbe1", "--", "true")
    assert done.returncode == 2
    assert error_lines(done) == ["opsexec: no host or group matches 'wbe1'", '  hint: did you mean "web1"?']


def test_a_wrong_key_is_refused_with_the_reason(cli: Cli, web1: Endpoint) -> None:
    key = cli.home / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    done = cli.run(
        "exec",
        web1.url,
        "--identity",
        key,
        "--known-hosts",
        web1.known_hosts,
        "-F",
        "/dev/null",
        "--",
        "true",
    )
    assert done.returncode == 3
    assert f"login refused for {web1.user}" in error_lines(done)[0]


def test_a_key_file_that_is_not_there_is_a_usage_error(cli: Cli, web1: Endpoint) -> None:
    done = cli.run("exec", web1.url, "--identity", "nokey", "-F", "/dev/null", "--", "true")
    assert done.returncode == 2
    assert "the key nokey can't be used" in error_lines(done)[0]


def test_an_unknown_and_a_changed_host_key_are_refused_with_their_fingerprints(cli: Cli) -> None:
    with Sshd(listen=["127.0.0.63"]) as server:
        end = server.endpoint()
        known = cli.home / "known"
        words = ["exec", end.url, "--identity", end.identity, "--known-hosts", known, "-F", "/dev/null"]
        done = cli.run(*words, "--", "true")
        assert done.returncode == 3
        assert f"offered {server.host_fingerprint()}" in error_lines(done)[0]
        assert cli.run(*words, "--accept-new", "--", "true").returncode == 0
        assert cli.run(*words, "--", "true").returncode == 0
        old = server.host_fingerprint()
        server.restart(new_host_key=True)
        for accept in ([], ["--accept-new"]):
            done = cli.run(*words, *accept, "--", "true")
            assert done.returncode == 3
            assert f"the host key changed: known {old}, offered {server.host_fingerprint()}" in error_lines(done)[0]


def test_without_an_audit_nothing_runs(cli: Cli, web1: Endpoint, sshd: Sshd) -> None:
    blocker = cli.home / "file"
    blocker.write_text("")
    before = sshd.connections_accepted()
    done = cli.run("exec", web1.url, *login(web1), "--", "true", OPSEXEC_AUDIT=str(blocker / "audit.jsonl"))
    assert done.returncode == 3
    said = error_lines(done)
    assert "audit" in said[0]
    assert said[1].startswith("  hint: no audit, no run")
    assert sshd.connections_accepted() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["ssh", "local"])
def test_a_signal_ends_what_runs_on_the_host_and_says_so(cli: Cli, web1: Endpoint, number, where) -> None:
    seconds = unique_sleep(SECONDS)
    host = [web1.url, *login(web1)] if where == "ssh" else ["local:"]
    script = f"setsid sleep {seconds} & exec sleep {seconds}"
    with cli.start("exec", *host, "--", "sh", "-c", script) as running:
        wait_for(lambda: len(sleeping(seconds)) == 2, "running program")
        begun = time.monotonic()
        running.send_signal(number)
        _, said = running.communicate(timeout=10)
        took = time.monotonic() - begun
    assert running.returncode == 128 + number
    assert said.decode() == f"opsexec: interrupted by {number.name}: what was under way has been ended\n"
    assert sleeping(seconds) == []
    assert took < 4  # under 1 s where nothing else runs


def test_a_signal_ends_what_runs_on_every_host_of_a_pattern(inventory: Cli) -> None:
    seconds = unique_sleep(SECONDS)
    text = (inventory.home / "inventory.toml").read_text().replace("/usr/bin/printf", "/usr/bin/sleep")
    (inventory.home / "inventory.toml").write_text(text)
    with inventory.start("exec", "web", "--", "sleep", seconds) as running:
        wait_for(lambda: len(sleeping(seconds)) == 2, "program on both hosts")
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=10)
    assert running.returncode == 130
    assert sleeping(seconds) == []


def test_a_reader_that_goes_away_ends_the_program(cli: Cli, web1: Endpoint) -> None:
    with cli.start("exec", web1.url, *login(web1), "--", "sh", "-c", "echo $$; exec yes") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        pid = int(running.stdout.readline())
        running.stdout.close()
        said = running.stderr.read()
        assert running.wait(10) == 141
    assert said == b""
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "end of the program", 3)


@pytest.mark.parametrize("words", [["exec", "local:", "--", "yes"], ["actions"]])
def test_a_full_disk_behind_the_output_is_one_sentence(cli: Cli, words: list[str]) -> None:
    require(Path("/dev/full"), "needs /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            cli.argv(*words), stdout=full, stderr=subprocess.PIPE, cwd=cli.home, env=cli.env, check=False, timeout=20
        )
    assert done.returncode == 3
    assert b"the output can't be written: No space left on device" in done.stderr
    assert b"internal error" not in done.stderr


def test_a_reader_that_stalls_does_not_keep_the_command_from_ending(cli: Cli, web1: Endpoint) -> None:
    with cli.start("exec", web1.url, *login(web1), "--", "sh", "-c", "echo $$; exec yes") as running:
        assert running.stdout is not None
        pid = int(running.stdout.readline())
        wait_for(lambda: b"pipe" in _waits_in(running.pid), "full pipe")
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 130
        assert not os.path.exists(f"/proc/{pid}")


def _waits_in(pid: int) -> bytes:
    """The kernel functions its threads sleep in, where the kernel tells; else `pipe`, to go on."""
    found = b""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/wchan", "rb") as file:
            found += file.read() + b" "
    return found if found.strip(b"0 ") else b"pipe"


def test_a_host_that_froze_does_not_keep_the_command_from_ending(cli: Cli) -> None:
    seconds = unique_sleep(SECONDS)
    with Sshd(listen=["127.0.0.69"]) as server:
        end = server.endpoint()
        with cli.start("exec", end.url, *login(end), "--", "sleep", seconds) as running:
            wait_for(lambda: sleeping(seconds), "program")
            _freeze(server)
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=15)
        assert running.returncode == 130
        assert b"Traceback" not in said
        assert b"look on the host" in said
        assert said.endswith(b"opsexec: interrupted by SIGINT\n")


def test_a_second_signal_leaves_at_once(cli: Cli) -> None:
    seconds = unique_sleep(SECONDS)
    with Sshd(listen=["127.0.0.69"]) as server:
        end = server.endpoint()
        with cli.start("exec", end.url, *login(end), "--", "sleep", seconds) as running:
            wait_for(lambda: sleeping(seconds), "program")
            _freeze(server)
            running.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(1)
            begun = time.monotonic()
            running.send_signal(signal.SIGINT)
            assert running.wait(10) == 130
            assert time.monotonic() - begun < 5


def _freeze(server: Sshd) -> None:
    """Stop the server's side of every connection, as a host does that hangs."""
    for pid in server.session_pids():
        os.kill(pid, signal.SIGSTOP)


def test_a_connection_that_breaks_is_one_sentence_and_exit_3(cli: Cli) -> None:
    seconds = unique_sleep(SECONDS)
    with Sshd(listen=["127.0.0.69"]) as server:
        end = server.endpoint()
        with cli.start("exec", end.url, *login(end), "--", "sleep", seconds) as running:
            wait_for(lambda: sleeping(seconds), "program")
            server.kill_connections()
            _, said = running.communicate(timeout=15)
        wait_for(lambda: not sleeping(seconds), "end of the program", 3)
    assert running.returncode == 3
    assert said.count(b"\n") == 2
    assert b"the connection was lost; whether its steps finished is unknown" in said
