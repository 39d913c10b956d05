"""The bundle's supervisor, with daemons of the test's own: starting, forwarding, restarting, ending."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bottle.sidecars.supervising import exit_status

ROOT = Path(__file__).parents[2]
WAITS = "import sys, time; print('up', sys.stdin.read(), flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


class Supervisor:
    """A running supervisor: what it says, and a line to it."""

    def __init__(self, daemons: dict[str, tuple[str, str]]) -> None:
        env = {"PATH": os.environ["PATH"]}
        config = {
            name: {"argv": [sys.executable, "-c", code], "env": env, "stdin": given}
            for name, (code, given) in daemons.items()
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bottle.sidecars.init"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.tell(json.dumps({"daemons": config}))

    def tell(self, line: str) -> None:
        """Say one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self, wanted: str) -> str:
        """Return the next line that holds this."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if wanted in line:
                return line
        raise AssertionError(f"it ended without {wanted!r}: {self.process.stderr and self.process.stderr.read()}")

    def ended(self) -> int:
        """Wait for its end."""
        return self.process.wait(timeout=20)


@contextmanager
def supervisor(**daemons: tuple[str, str]) -> Iterator[Supervisor]:
    running = Supervisor(daemons)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait(timeout=20)
        for stream in (running.process.stdin, running.process.stdout, running.process.stderr):
            assert stream is not None
            stream.close()


def test_each_daemon_gets_its_own_input_and_its_lines_its_name() -> None:
    with supervisor(one=(WAITS, "secret-1"), two=(WAITS, "secret-2")) as running:
        said = {running.hear("up"), running.hear("up")}
        assert said == {"one | up secret-1\n", "two | up secret-2\n"}
        argv = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
        assert b"secret" not in argv


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "stop", "end of input"])
def test_it_ends_everything_when_told_or_when_its_launcher_is_gone(how: str) -> None:
    with supervisor(one=(WAITS, ""), two=(WAITS, "")) as running:
        running.hear("one | up")
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        if how == "stop":
            running.tell("stop")
        elif how == "end of input":
            assert running.process.stdin is not None
            running.process.stdin.close()
        else:
            running.process.send_signal(signal.Signals[how])
        assert running.ended() == 0
        assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_one_that_doesn_t_listen_is_killed_after_its_grace() -> None:
    with supervisor(one=(STUBBORN, "")) as running:
        running.hear("up")
        running.tell("stop")
        assert running.ended() == 0


def test_an_unexpected_end_is_told_and_the_others_go_on() -> None:
    """PX30, LC6."""
    with supervisor(short=("raise SystemExit(3)", ""), long=(WAITS, "")) as running:
        assert "(3)" in running.hear("short ended unexpectedly")
        running.tell("nonsense")
        running.hear("nothing to do")
        running.tell("stop")
        assert running.ended() == 3


def test_a_restart_is_a_new_process_with_the_same_input() -> None:
    with supervisor(one=(WAITS.replace("'up'", "'up', __import__('os').getpid()"), "given")) as running:
        first = running.hear("up")
        running.tell("restart one")
        again = running.hear("up")
        assert first != again
        assert again.endswith("given\n")
        running.tell("stop")
        assert running.ended() == 0


def test_to_stop_wins_over_a_restart_that_is_under_way() -> None:
    with supervisor(one=(STUBBORN, "")) as running:
        running.hear("up")
        running.tell("restart one")  # it takes its whole grace to end
        running.tell("stop")
        assert running.ended() == 0
        assert running.process.stdout is not None
        assert "one | up" not in running.process.stdout.read()


def test_a_daemon_that_can_t_be_started_is_told_and_the_others_go_on() -> None:
    env = {"PATH": os.environ["PATH"]}
    config = {
        "none": {"argv": ["/no/program"], "env": env, "stdin": ""},
        "long": {"argv": [sys.executable, "-c", WAITS], "env": env, "stdin": ""},
    }
    done = subprocess.run(
        [sys.executable, "-m", "bottle.sidecars.init"],
        cwd=ROOT, input=json.dumps({"daemons": config}) + "\n", capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert "none ended unexpectedly (can't be started: No such file or directory)" in done.stdout
    assert done.returncode == 127


def test_a_positive_failure_wins_and_a_signal_counts_as_nothing() -> None:
    assert exit_status([]) == 0
    assert exit_status([-9, -15]) == 0
    assert exit_status([0, -9, 2, 1]) == 2


def test_no_file_descriptor_of_its_own_reaches_a_daemon() -> None:
    code = "import os; print('fds', sorted(int(each) for each in os.listdir('/proc/self/fd'))[:-1], flush=True)"
    with supervisor(one=(code, ""), two=(code, "")) as running:
        assert running.hear("fds").endswith("fds [0, 1, 2]\n")
        assert running.hear("fds").endswith("fds [0, 1, 2]\n")
