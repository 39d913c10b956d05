"""The caller's side of the watchdog: it starts, or says why it can't, and keeps each run's place apart."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec.errors import HostUnsuitable
from opsexec.hosts.copy_process import CopyProcess
from opsexec.hosts.watchdog import Watchdog
from tests.parts.waiting import eventually


@pytest.fixture
def none_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has started no watchdog; what the test starts is let go."""
    monkeypatch.setattr(Watchdog, "_of_this_process", None)
    yield
    if Watchdog._of_this_process is not None:
        Watchdog._of_this_process.close()


def test_a_watchdog_that_can_not_be_started_is_said_to_be_and_leaves_nothing_open(
    none_yet: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_program = tmp_path / "python3"
    no_program.write_text("")
    monkeypatch.setattr(sys, "executable", str(no_program))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(HostUnsuitable, match="Permission denied") as caught:
        Watchdog.get()
    assert caught.value.hint
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.anyio
async def test_a_copy_whose_watchdog_died_frees_no_place_of_the_next_one(none_yet: None) -> None:
    copy = await CopyProcess.start("run", ["sleep", "600"], lambda data: None, pass_fds=(), env=dict(os.environ))
    first = Watchdog.get()
    os.kill(first._process.pid, signal.SIGKILL)
    await eventually(lambda: first._process.poll() is not None, within_s=30, what="its end")
    second = Watchdog.get()
    assert second is not first
    in_use = second.open("another")
    await copy.end()
    assert second.open("a-third") != in_use


def test_one_that_a_run_has_stopped_ends_with_its_caller(none_yet: None) -> None:
    stopped = Watchdog.get()
    os.kill(stopped._process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, stopped._process.pid, os.WSTOPPED)
    try:
        stopped.close()
        assert stopped._process.returncode == 0
    finally:
        stopped._process.kill()
        stopped._process.wait()
