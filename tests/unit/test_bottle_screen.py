"""The operator's screen of a launch: a recording is kept of what was drawn, and none where nothing was."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bottle import screen, terminal
from opsexec.errors import StepFailed

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("draws", [False, True])
def test_a_launch_that_comes_to_nothing_leaves_no_recording(
    draws: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "is_there", lambda: True)
    monkeypatch.setattr(screen, "size", lambda: terminal.Size(80, 24, "xterm"))
    arguments = argparse.Namespace(json=False, tty=None, record=str(tmp_path / "a.cast"))
    plan = cast(Any, SimpleNamespace(identity="reviewer-1f2e3d4c", command=["claude"]))

    def launch() -> None:
        with screen.on_screen(arguments, plan, print) as shown:
            assert shown is not None
            if draws:
                assert shown._recording is not None
                shown._recording.output(b"hi")
            raise StepFailed("the bottle can't be started")

    with pytest.raises(StepFailed):
        launch()
    assert (tmp_path / "a.cast").exists() == draws


LEAVES = """
import os, sys
from bottle.screen import Screen
shown = Screen(lambda line: print(line, flush=True))
with shown.raw():
    shown._modes.watch(b"\\x1b[?1049h")
    shown.say("held")
    if "stuck" in sys.argv:
        os.set_blocking(1, False)
        try:
            while os.write(1, b"x" * 4096):
                pass
        except BlockingIOError:
            os.set_blocking(1, True)
        shown._outlet.put(b"x" * 1000000, lambda _: None)
        shown._tell = lambda line: print(line, file=sys.stderr)
"""


def leaving(*words: str) -> tuple[subprocess.Popen[bytes], int]:
    """A program that shows an agent's screen and leaves it, on a terminal; returns it and the terminal's other end."""
    other, own = os.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", LEAVES, *words], cwd=REPOSITORY, stdin=own, stdout=own, stderr=subprocess.PIPE
    )
    os.close(own)
    return program, other


def test_a_terminal_is_put_back_before_anything_is_told_on_it() -> None:
    program, other = leaving()
    said = b""
    while b"held\r\n" not in said:
        said += os.read(other, 4096)
    assert said == b"\x1b[?1049l\x1b[0mheld\r\n"
    assert program.wait(60) == 0
    assert program.stderr is not None
    program.stderr.close()
    os.close(other)


def test_a_terminal_that_stands_still_holds_up_no_end() -> None:
    program, other = leaving("stuck")
    try:
        assert program.wait(60) == 0
    finally:
        program.kill()
        _, said = program.communicate()
        os.close(other)
    assert said == b"held\n"
