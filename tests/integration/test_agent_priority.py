"""The agent's own priority, and that nothing it starts has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec.steps import Exec
from tests.conftest import require
from tests.parts.agent_calls import rpc
from tests.parts.ops_agent import OpsAgent

USUAL = 0


def nice_in(stat: str) -> int:
    """The nice value that proc(5) has in the 19th field of stat."""
    return int(stat.rpartition(") ")[2].split()[16])


def go_ahead(*before: str, held: int = USUAL, setup: str = "") -> list[int]:
    """What `go_ahead(-10)` returns in a process of its own, then its nice value, a thread's and a child's."""
    code = f"""
import os, subprocess, sys, threading
{setup}
from agent.priority import go_ahead
found = [go_ahead(-10), os.getpriority(os.PRIO_PROCESS, 0)]
thread = threading.Thread(target=lambda: found.append(os.getpriority(os.PRIO_PROCESS, 0)))
thread.start()
thread.join()
found.append(int(subprocess.run(["/usr/bin/nice"], capture_output=True, text=True).stdout))
print(*found)
"""
    argv = [*before, sys.executable, "-c", code]
    if held:
        argv = ["nice", "-n", str(held), *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    require(os.geteuid() == 0, "needs root: others may not raise a priority")
    held = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, USUAL)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, held)


@pytest.mark.anyio
@pytest.mark.parametrize("nice", [-10, USUAL])
async def test_the_agent_goes_first_and_what_it_starts_does_not(nice: int) -> None:
    with OpsAgent(nice=nice) as agent:
        async with rpc(agent) as ex:
            program = await ex.run(Exec(["/bin/cat", "/proc/self/stat"]))
            child = await ex.run(Exec(["/bin/sh", "-c", "cat /proc/self/stat; true"]))
        own = nice_in(Path(f"/proc/{agent.pid}/stat").read_text())
    assert own == nice
    assert nice_in(program.text) == nice_in(child.text) == USUAL


def test_no_thread_and_no_child_inherits_it() -> None:
    assert go_ahead() == [-10, -10, USUAL, USUAL]


def test_a_priority_given_from_outside_stays_and_is_inherited_by_nobody() -> None:
    assert go_ahead(held=-5) == [-5, -5, USUAL, USUAL]


def test_who_was_put_behind_stays_there() -> None:
    assert go_ahead(held=5) == [5, 5, 5, 5]


def test_a_plain_user_keeps_the_usual_one() -> None:
    dropped = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    assert go_ahead(setup=f"import agent.priority; {dropped}") == [0, USUAL, USUAL, USUAL]


def test_where_it_could_be_inherited_it_is_not_taken() -> None:
    refused = "def refuse(*_): raise PermissionError\nos.sched_setscheduler = refuse"  # as RestrictRealtime= has it
    assert go_ahead(setup=refused) == [0, USUAL, USUAL, USUAL]
    assert go_ahead(held=-5, setup=refused) == [0, USUAL, USUAL, USUAL]
