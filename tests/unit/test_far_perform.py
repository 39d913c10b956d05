"""What a session has at hand before it forks a child for a call: a child that loads it loads it again at every call."""

from __future__ import annotations

import subprocess
import sys

import pytest

from opsexec.far.operations import FAMILIES, OPERATIONS

FRESH = """
import os, sys
from opsexec.far.perform import perform_in_child
names = sys.argv[1:]
for name in names:
    pid, out = perform_in_child([name.encode()])
    os.set_blocking(out, True)
    assert os.read(out, 1) == b"f"  # it lacks its arguments, and says so
    assert os.waitpid(pid, 0)[1] == 0
    os.close(out)
print(*sorted(each for each in sys.modules if each.startswith("opsexec.far.") or each == "json"))
"""


def test_every_operation_has_its_family() -> None:
    assert FAMILIES.keys() == OPERATIONS.keys()


@pytest.mark.parametrize(("name", "family"), [("read_file", "files"), ("write_file", "writing"), ("remove", "removal")])
def test_what_a_call_needs_is_loaded_before_its_child_is_forked(name: str, family: str) -> None:
    done = subprocess.run([sys.executable, "-c", FRESH, name], capture_output=True, text=True, timeout=30, check=True)
    assert {f"opsexec.far.{family}", "json"} <= set(done.stdout.split())


def test_what_is_no_operation_is_refused_by_the_child() -> None:
    subprocess.run([sys.executable, "-c", FRESH, "os", "\xff"], capture_output=True, timeout=30, check=True)
