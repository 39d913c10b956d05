"""Users as containers have them: a uid that no account has, without a home or with one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.conftest import require_root
from tests.parts.as_user import PLAIN

ROOT = Path(__file__).parent.parent.parent

READING = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
"""This Python may stand where only root can read."""
AS_NOBODY = ("setpriv", f"--reuid={PLAIN}", f"--regid={PLAIN}", "--clear-groups", *READING)


def opsexec(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it as a user without an account; environment variables are these alone."""
    return subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "opsexec.cli", *words],
        cwd=cwd,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def place(shared_dir: Path) -> Path:
    """A directory that this user may write."""
    require_root()
    os.chown(shared_dir, PLAIN, PLAIN)
    require("setpriv", "needs setpriv")
    return shared_dir


SSH = ("exec", "ssh://127.0.0.1:1", "--", "true")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("exec", "local:", "--", "true"), "set HOME, or XDG_STATE_HOME"),
        (("audit", "tail"), "set HOME, or XDG_STATE_HOME"),
        (("hosts",), "hint: "),
        (("facts", "web1"), "hint: "),
        (SSH, "hint: "),
    ],
)
def test_without_a_home_a_command_says_what_it_lacks_and_makes_nothing(
    place: Path, words: tuple[str, ...], said: str
) -> None:
    done = opsexec(*words, cwd=place)
    assert done.returncode in ((0,) if words == ("hosts",) else (2, 3)), done.stderr
    assert "internal error" not in done.stderr
    assert said in done.stderr
    assert list(place.iterdir()) == []


def test_with_a_home_it_works_under_its_number(place: Path) -> None:
    done = opsexec("exec", "local:", "--", "id", "-u", cwd=place, HOME=str(place))
    assert (done.returncode, done.stdout) == (0, f"{PLAIN}\n"), done.stderr
    shown = opsexec("audit", "tail", "-n", "1", cwd=place, HOME=str(place))
    assert f"unix:{PLAIN}" in opsexec("audit", "tail", "--json", cwd=place, HOME=str(place)).stdout, shown.stderr


def test_another_user_and_a_login_are_refused_in_a_sentence(place: Path) -> None:
    for words, said in (
        (("exec", "local:", "--as", "nobody", "--", "id"), "can't become nobody"),
        (SSH, "set USER"),
    ):
        done = opsexec(*words, cwd=place, HOME=str(place))
        assert done.returncode == 3 or said == "set USER", done.stderr
        assert said in done.stderr
        assert "internal error" not in done.stderr
    done = opsexec(*SSH, cwd=place, HOME=str(place), USER="somebody")
    assert "can't connect" in done.stderr
