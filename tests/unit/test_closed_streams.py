"""A command that was started with its streams closed: they hold nothing, and no file of its own gets their numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LOOKS = """
import os, sys
from opsexec.closed_streams import stand_in
stand_in()
print("said to nobody")
found = [sys.stdin.isatty(), sys.stdin.read(), os.get_inheritable(0), os.open("/dev/null", os.O_RDONLY) > 2]
sys.exit(0 if found == [False, "", True, True] else 1)
"""


def test_closed_streams_hold_nothing() -> None:
    shell = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    done = subprocess.run([*shell, sys.executable, "-c", LOOKS], cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == 0


def test_nobody_is_asked_where_stdin_is_closed() -> None:
    shell = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "bottle", "dashboard"]
    done = subprocess.run(shell, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bottle: the dashboard needs a terminal\n")


@pytest.mark.parametrize("module", ["opsexec.cli", "agent", "bottle"])
def test_every_program_bears_streams_that_are_closed(module: str) -> None:
    shell = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", module, "--version"]
    done = subprocess.run(shell, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
