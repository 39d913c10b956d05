"""What `ops-agent` offers for a half-typed line, and that the shells take its scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import main
from tests.conftest import require


@pytest.fixture(autouse=True)
def _inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventory.toml").write_text('[hosts.web1]\nurl = "local:"\n')
    monkeypatch.setenv("OPSEXEC_INVENTORY", str(tmp_path / "inventory.toml"))


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["do"], {"doctor"}),
        (["doctor", "--hos"], {"--host"}),
        (["doctor", "--host", ""], {"web1"}),
        (["--host", "w"], {"web1"}),
        (["doctor", "web", "--format", "s"], {"sarif"}),
        (["doctor", "--only", "svc.res"], {"svc.restart-count"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["check-config", ""], set()),
        (["doctor", "web", "--", "x"], set()),
    ],
)
def test_what_may_stand_next_is_offered(line: list[str], offered: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["_complete", "--", *line]) == 0
    assert set(capsys.readouterr().out.splitlines()) == offered


def test_the_question_of_the_scripts_is_no_command_that_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    main(["_complete", "--", ""])
    offered = capsys.readouterr().out.splitlines()
    assert {"doctor", "whoami", "completion"} <= set(offered)
    assert not any(each.startswith("_") for each in offered)


ASKED = {
    "bash": 'COMP_WORDS=(ops-agent who); COMP_CWORD=1; _ops_agent; printf "%s\\n" "${COMPREPLY[@]}"',
    "fish": "complete -C 'ops-agent who'",
    "zsh": "words=(ops-agent who); CURRENT=2; compadd() { shift; print -l -- $@ }; _ops_agent",
}


@pytest.mark.parametrize("shell", sorted(ASKED))
def test_a_shell_asks_with_the_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require(shell, f"needs {shell}")
    main(["completion", shell])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "ops-agent").write_text(f'#!/bin/sh\nexec {sys.executable} -m agent "$@"\n')
    (tmp_path / "ops-agent").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    plain = {"bash": ["--norc"], "fish": ["--no-config"], "zsh": ["-f"]}[shell]
    before = "autoload -U compinit; compinit -D; " if shell == "zsh" else ""
    argv = [shell, *plain, "-c", f"{before}. {tmp_path}/script; {ASKED[shell]}"]
    root = Path(__file__).parents[2]
    done = subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout.split(), done.stderr) == (["whoami"], "")
