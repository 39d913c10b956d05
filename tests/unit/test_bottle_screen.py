"""The operator's screen of a launch: a recording is kept of what was drawn, and none where nothing was."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bottle import screen, terminal
from opsexec.errors import StepFailed


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
