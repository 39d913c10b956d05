"""Ctrl-C while a program is still being loaded: no traceback; once it runs, it is told as ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.bottle_running import REPOSITORY

PROGRAM = """
import os, signal, sys
from importlib import import_module

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            os.kill(os.getpid(), signal.SIGINT)

entry, where, ignored, *words = sys.argv[1:]
if ignored:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.meta_path.insert(0, CtrlC())
main = import_module(entry).main
sys.argv[:] = [entry, *words]
sys.exit(main())
"""
"""Runs a program's entry point, and sends itself SIGINT when a module is about to be loaded."""


def ended(entry: str, where: str, *words: str, ignored: str = "") -> tuple[int, str, str]:
    """How it ended, and what it said."""
    argv = [sys.executable, "-c", PROGRAM, entry, where, ignored, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("entry", "where"),
    [("opsexec.cli", "opsexec.cli.ending"), ("bottle.cli", "bottle.arguments"), ("agent.__main__", "agent.cli")],
)
def test_while_it_is_loaded_it_ends_without_a_traceback(entry: str, where: str) -> None:
    assert ended(entry, where, "--version") == (-2, "", "")
    code, said, errors = ended(entry, where, "--version", ignored="yes")
    assert (code, errors) == (0, "")
    assert said


def test_an_agent_that_is_about_to_serve_ends_so_too(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[agent]\nlisten = ["unix:{tmp_path}/agent.sock"]\nstate_dir = "{tmp_path}/state"\n')
    assert ended("agent.__main__", "agent.server", "--config", str(config)) == (-2, "", "")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("entry", "where", "words", "told"),
    [
        ("opsexec.cli", "opsexec.cli.parser", ["--version"], "opsexec: interrupted\n"),
        ("bottle.cli", "bottle.commands.bottles", ["list"], "bottle: interrupted\n"),
        ("agent.__main__", "agent.config_schema", ["schema"], ""),
    ],
)
def test_once_it_runs_it_is_told(entry: str, where: str, words: list[str], told: str) -> None:
    assert ended(entry, where, *words) == (130, "", told)
