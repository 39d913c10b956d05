"""Ending a tree ends that tree alone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from opsexec.far import tree_end
from opsexec.far.launch import MARKER
from opsexec.far.tree_end import TreeEnd, members
from tests.parts.waiting import eventually_now

RUN = "0123456789abcdef"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of no run, which has by chance the pid that a run's first process had."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


def finish(end: TreeEnd) -> None:
    eventually_now(lambda: end.step() is None, within_s=20, what="the end of the tree")


def test_a_process_that_got_the_pid_of_a_reaped_leader_is_left_alone(stranger):
    end = TreeEnd(RUN, stranger.pid, 0.0, reaped=True)
    finish(end)
    assert stranger.poll() is None
    assert end.survivors == 0


def test_a_process_that_got_the_leaders_pid_while_its_tree_was_ended_is_left_alone(stranger):
    (start,) = members(RUN, stranger.pid, {}).values()
    assert members(RUN, stranger.pid, {stranger.pid: start}) == {stranger.pid: start}
    assert members(RUN, stranger.pid, {stranger.pid: str(int(start) - 1)}) == {}


def test_what_a_reaped_leader_left_behind_is_ended_by_its_group_and_by_its_mark():
    script = (
        "import os, subprocess, sys\n"
        "subprocess.Popen(['sleep', '60'], env={})\n"  # in the group, without the mark
        f"subprocess.Popen(['sleep', '60'], env={{'{MARKER}': '{RUN}'}}, start_new_session=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True) as leader:
        assert leader.wait(timeout=10) == 0
        assert len(members(RUN, leader.pid, {}, reaped=True)) == 2
        finish(TreeEnd(RUN, leader.pid, 0.0, reaped=True))
        assert members(RUN, leader.pid, {}, reaped=True) == {}


def test_a_child_that_is_born_while_proc_is_read_by_a_parent_that_ends_then_is_found(monkeypatch):
    """Each had been listed or not yet born: nobody of the run was both there to be listed and there to be looked at."""
    script = "import os, subprocess, sys; sys.stdin.read(); subprocess.Popen(['sleep', '60'], start_new_session=True)"
    env = {**os.environ, MARKER: RUN}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, env=env, start_new_session=True
    ) as parent:
        look = tree_end._stat
        looked: list[int] = []

        def later(pid: int) -> list[str] | None:
            if not looked:
                parent.communicate(timeout=20)  # it has its child, and ends
            looked.append(pid)
            return look(pid)

        eventually_now(lambda: members(RUN, parent.pid, {}), within_s=10, what="it carries its mark")
        monkeypatch.setattr(tree_end, "_stat", later)
        found = members(RUN, parent.pid, {}, reaped=True)
        monkeypatch.undo()
        assert len(found) == 1
        assert parent.pid not in found
        finish(TreeEnd(RUN, parent.pid, 0.0, reaped=True))


def test_where_something_is_always_being_born_a_look_takes_an_end(monkeypatch):
    born = iter(range(10**6, 10**7))
    monkeypatch.setattr(tree_end, "_pids", lambda: {next(born)})
    assert members(RUN, 0, {}) == {}
    assert next(born) == 10**6 + tree_end.LISTINGS


def test_a_number_that_is_a_thread_s_by_now_is_no_process_s():
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        tree_end.send(thread.native_id, "0", signal.SIGTERM)
    finally:
        ends.set()
        thread.join()


def test_a_process_that_an_older_kernel_is_taking_away_just_then_is_gone(monkeypatch):
    def opened(pid: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "pidfd_open", opened)
    tree_end.send(os.getpid(), "0", signal.SIGTERM)
