"""Ending a tree ends that tree alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

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
