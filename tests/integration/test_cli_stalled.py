"""A terminal that nobody reads: what was started ends at its deadline, signals end the command, nothing is lost."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parts.process_tree import processes_with_argument
from tests.parts.waiting import eventually_now

MARK = f"yes-{os.getpid()}"
RUNBOOK = "name: x\nhosts: all\nsteps:\n" + "".join(
    f"  - exec: [/usr/bin/true]\n    name: {'long ' * 40}{at}\n" for at in range(40)
)
EXEC = ("exec", "local:", "--timeout", "1", "--", "/usr/bin/yes", MARK)
JSON = ("exec", "local:", "--json", "--", "/usr/bin/seq", "1", "9000")
RUN = ("run", "book.yaml", "-i", "inventory.toml")


@contextmanager
def on_a_terminal(directory: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command, with both its outputs on a terminal of its own; gives that terminal's other end."""
    (directory / "book.yaml").write_text(RUNBOOK)
    (directory / "inventory.toml").write_text('[hosts.me]\nurl = "local:"\n')
    leader, follower = os.openpty()
    env = {"PATH": os.environ["PATH"], "HOME": str(directory), "TERM": "dumb"}
    argv = [sys.executable, "-m", "opsexec.cli", *words]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, cwd=directory, env=env | {"PYTHONPATH": root}
    )
    os.close(follower)
    try:
        yield process, leader
    finally:
        process.kill()
        process.wait(10)
        os.close(leader)


def is_full(process: subprocess.Popen[bytes], leader: int) -> bool:
    """Whether the terminal holds about as much as it takes while nobody reads it, and what was run has ended."""
    assert process.poll() is None, "it ended, though nobody read what it said"
    if processes_with_argument(MARK) not in ([], [process.pid]):
        return False
    waiting = array("i", [0])
    fcntl.ioctl(leader, termios.FIONREAD, waiting)
    return waiting[0] > 3000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", [EXEC, JSON, RUN, (*RUN, "--json")], ids=["exec", "exec json", "run", "run json"])
def test_signals_end_what_waits_for_a_terminal(tmp_path: Path, words: tuple[str, ...], number: signal.Signals) -> None:
    with on_a_terminal(tmp_path, *words) as (process, leader):
        eventually_now(lambda: is_full(process, leader), within_s=20, what="it is done, and can't say so")

        def ended() -> bool:
            if process.poll() is None:
                process.send_signal(number)
            try:
                process.wait(1.5)  # by then it tells of the first one, which nobody reads either
            except subprocess.TimeoutExpired:
                return False
            return True

        eventually_now(ended, within_s=12, what="signals end it")
        assert process.returncode in (128 + number, -number)


@pytest.mark.parametrize("words", [JSON, (*RUN, "--json")], ids=["exec", "run"])
def test_what_was_said_is_there_once_it_is_read(tmp_path: Path, words: tuple[str, ...]) -> None:
    with on_a_terminal(tmp_path, *words) as (process, leader):
        eventually_now(lambda: is_full(process, leader), within_s=20, what="it is done, and can't say so")
        said = b""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                said += os.read(leader, 65536)
            except OSError:  # its other end is closed
                break
        assert process.wait(10) == 0
        assert said.rstrip().endswith(b"}")
