"""The terminal inside a bottle, as the real program that makes it: whoever leaves it isn't kept by what runs there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bottle.sidecars import terminal

SOURCE = Path(terminal.__file__).read_text("utf-8")
GRACE = f"HANG_UP_S = {terminal.HANG_UP_S}"


@pytest.mark.parametrize(
    ("program", "status"),
    [("trap '' HUP; echo ready; exec sleep 600", 137), ("trap 'exit 7' HUP; echo ready; read x", 7)],
)
def test_a_program_that_was_hung_up_on_ends(program: str, status: int) -> None:
    assert GRACE in SOURCE
    quick = SOURCE.replace(GRACE, "HANG_UP_S = 1.0" if status == 137 else "HANG_UP_S = 600.0")
    argv = [sys.executable, "-I", "-S", "-c", quick, "80", "24", "xterm", "--", "/bin/sh", "-c", program]
    relay = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert relay.stdin is not None
        assert relay.stdout is not None
        assert relay.stdout.readline() == b"ready\r\n"
        relay.stdin.close()
        assert relay.wait(60) == status
    finally:
        relay.kill()
        relay.wait()
        assert relay.stdout is not None
        relay.stdout.close()
