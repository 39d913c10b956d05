"""Every way in which people write a declared address leads git to the gate. git itself is asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bottle.git_gate import git_config
from bottle.manifest import load_object
from bottle.plan import Intent, make_plan
from tests.conftest import require

GATE = "http://127.0.0.1:8878/"
SITE = "ssh://git@git.example.com/team/site"
PORT = "ssh://me@[fd00::1]:2222/srv/tool.git"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    require("git", "needs git (apt-get install git)")
    repos = {name: {"url": url, "identity": "k"} for name, url in (("site", SITE), ("tool", PORT))}
    data = {"bottles": {"dev": {"git-gate": {"repos": repos}}}, "agents": {"a": {"bottle": "dev"}}}
    plan = make_plan(load_object(data).load("a"), Intent("a-00000000", arguments=("true",)))
    path = tmp_path / "config"
    path.write_text(git_config(plan), "utf-8")
    return path


@pytest.mark.parametrize(
    ("written", "leads_to"),
    [
        (SITE, "site"),
        (f"{SITE}.git", "site"),
        ("ssh://git@git.example.com:22/team/site", "site"),
        ("git@git.example.com:team/site", "site"),
        ("git@git.example.com:team/site.git", "site"),
        ("git@git.example.com:/team/site.git", "site"),
        (PORT, "tool"),
        (PORT.removesuffix(".git"), "tool"),
        ("git@git.example.com:team/other", None),
        ("ssh://git@git.example.com:2222/team/site", None),
        ("ssh://other@git.example.com/team/site", None),
        ("ssh://me@[fd00::1]/srv/tool.git", None),
        ("https://git.example.com/team/site", None),
    ],
)
def test_an_address_leads_to_the_gate_however_it_is_written(config: Path, written: str, leads_to: str | None) -> None:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1"}
    asked = ["git", "ls-remote", "--get-url", written]
    done = subprocess.run(asked, env=env, cwd=config.parent, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == (written if leads_to is None else GATE + leads_to)
