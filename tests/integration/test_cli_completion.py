"""Completion in the real shells: what they offer for a half-typed command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.cli_runs import Cli
from tests.integration.cli_terminal import on_terminal


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A Cli with an inventory, its script on PATH, and each shell's completion in `complete.SHELL`."""
    cli = Cli(tmp_path)
    (tmp_path / "inventory.toml").write_text('[hosts.web1]\nurl = "local:"\ngroups = ["web"]\n')
    (tmp_path / "other.toml").write_text('[hosts.other1]\nurl = "local:"\n')
    (tmp_path / "book.yaml").write_text("")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "opsexec"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m opsexec.cli "$@"\n')
    script.chmod(0o755)
    cli.env["PATH"] = f"{tmp_path}/bin:{cli.env['PATH']}"
    for shell in ("bash", "zsh", "fish"):
        (tmp_path / f"complete.{shell}").write_bytes(cli.run("completion", shell).stdout)
    return cli


def offered_by_bash(cli: Cli, line: str) -> list[str]:
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        f". ./complete.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        '_opsexec; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return _lines(cli, "bash", "--norc", "-c", script)


def offered_by_fish(cli: Cli, line: str) -> list[str]:
    script = f"source complete.fish; complete -C '{line}'"
    return [each.partition("\t")[0] for each in _lines(cli, "fish", "--no-config", "-c", script)]


def _lines(cli: Cli, *argv: str) -> list[str]:
    require(argv[0], f"needs {argv[0]}")
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cli.home, env=cli.env, check=False, timeout=30)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


LINES = [
    ("opsexec ex", {"exec"}, set()),
    ("opsexec ", {"exec", "run", "tty", "completion"}, {"--version"}),
    ("opsexec --", {"--help", "--version"}, {"exec"}),
    ("opsexec exec --ti", {"--timeout"}, {"--forks"}),
    ("opsexec exec we", {"web", "web1"}, {"book.yaml"}),
    ("opsexec run bo", {"book.yaml"}, {"web1"}),
    ("opsexec run book.yaml --inventory o", {"other.toml"}, {"web1"}),
    ("opsexec audit ver", {"verify"}, {"tail"}),
    ("opsexec audit verify --h", {"--head", "--help"}, set()),
    ("opsexec schema run", {"runbook"}, {"inventory"}),
    ("opsexec facts web1 mem", {"memory"}, {"web1"}),
    ("opsexec exec --as ro", {"root"}, {"web1"}),
]


@pytest.mark.parametrize("offered", [offered_by_bash, offered_by_fish])
@pytest.mark.parametrize(("line", "among", "never"), LINES)
def test_a_shell_offers_what_can_stand_there(cli: Cli, offered, line: str, among: set[str], never: set[str]) -> None:
    words = set(offered(cli, line))
    assert among <= words
    assert not never & words


def test_bash_asks_the_inventory_that_the_line_names_and_offers_programs_after_the_dashes(cli: Cli) -> None:
    assert offered_by_bash(cli, "opsexec exec -i other.toml o") == ["other1"]
    assert "uptime" in offered_by_bash(cli, "opsexec exec web1 -- upti")


def test_zsh_completes_commands_options_hosts_and_files(cli: Cli) -> None:
    zsh = require("zsh", "needs zsh")
    (cli.home / ".zshrc").write_text(
        "PROMPT='> '; unsetopt zle_bracketed_paste 2>/dev/null; zle_bracketed_paste=(); "
        "autoload -U compinit; compinit -u -D; . ./complete.zsh; echo ready\n"
    )
    env = {**cli.env, "ZDOTDIR": str(cli.home), "TERM": "dumb"}
    with on_terminal([zsh, "-i"], cwd=cli.home, env=env) as person:
        person.sees("ready")
        for typed, completed in (
            ("opsexec comp\t", "completion "),
            ("opsexec exec --tim\t", "--timeout "),
            ("opsexec exec web1 --sud\t", "--sudo "),
            ("opsexec exec -i other.toml oth\t", "other1 "),
            ("opsexec run boo\t", "book.yaml "),
            ("opsexec audit ver\t", "verify "),
            ("opsexec schema inv\t", "inventory "),
        ):
            person.types(typed)
            person.sees(completed)
            person.types("\x15\x0b")
        person.types("exit\r")
        person.leaves()


def test_the_scripts_hold_no_path_of_this_machine(cli: Cli) -> None:
    for shell in ("bash", "zsh", "fish"):
        text = (cli.home / f"complete.{shell}").read_text()
        assert os.getcwd() not in text
        assert sys.prefix not in text
