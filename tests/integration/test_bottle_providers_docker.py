"""The real Claude Code and Codex in containers: the same packages in an image, the same stand-ins of their APIs.

No registry is asked: the image is the tests' own base with the programs that scripts/agents.sh installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.bottle_engine import IMAGE, BottleEngine
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import TOKEN, Bottles, require_bottles
from tests.parts.fake_model_api import CHATGPT_HOST, CLAUDE_HOST, OPENAI_HOST, REPLY, fake_model_api
from tests.parts.lonely_internet import ADDRESS
from tests.parts.model_logins import PROMPT, WORD, arrived_at, installed, log_in, said_in
from tests.parts.upstream_tls import Upstream

pytestmark = [pytest.mark.timeout(300), pytest.mark.attack(backend="docker")]
AGENTS = "opsexec-test/agents:1"


@pytest.fixture(scope="module")
def bottles(bottle_engine: BottleEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    require_bottles()
    directory, programs = tmp_path_factory.mktemp("providers"), installed()
    _image(bottle_engine, programs, directory / "context")
    root = HomeRoot(directory / "root")
    (root.path / "agents.Dockerfile").write_text(f"FROM {AGENTS}\n")
    for name, credential in (("claude", "auth_token: API_TOKEN"), ("codex", "forward_host_credentials: true")):
        root.bottle(name, f"agent_provider: {{template: {name}, {credential}, dockerfile: agents.Dockerfile}}\n")
        root.agent(name, f"bottle: {name}\n", PROMPT)
    bottle_engine.ip("addr", "add", f"{ADDRESS}/32", "dev", "lo")
    (directory / "upstream").mkdir()
    upstream = Upstream(
        directory / "upstream", (CLAUDE_HOST, OPENAI_HOST, CHATGPT_HOST), ADDRESS, handler=fake_model_api
    )
    bottle_engine.within(upstream.__enter__)
    try:
        yield Bottles(root, upstream, env={"CODEX_HOME": str(directory / "codex")}, engine=bottle_engine)
    finally:
        upstream.__exit__()
        bottle_engine.ip("addr", "del", f"{ADDRESS}/32", "dev", "lo")
        bottle_engine.docker("rmi", "-f", AGENTS, check=False)


def _image(engine: BottleEngine, programs: Path, context: Path) -> None:
    context.mkdir()
    for name in ("claude", "codex"):
        program = (programs / "bin" / name).resolve()
        try:
            os.link(program, context / name)
        except OSError:  # another file system
            shutil.copy2(program, context / name)
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY claude codex /usr/local/bin/\n")
    engine.docker("build", "-q", "-t", AGENTS, str(context), within_s=200)
    shutil.rmtree(context)


def test_cr1_claude_code_answers_from_a_container(bottles: Bottles) -> None:
    ended = bottles.run("claude", ["-p", WORD])
    assert (ended.code, ended.stdout.strip()) == (0, REPLY), ended.stderr
    (asked,) = arrived_at(bottles, "/v1/messages")
    assert asked.header("authorization") == [f"Bearer {TOKEN}"]
    assert PROMPT.strip() in said_in(asked)


def test_cr1_codex_answers_from_a_container(bottles: Bottles) -> None:
    login = log_in(Path(bottles.env["CODEX_HOME"]))
    ended = bottles.run("codex", ["exec", "--skip-git-repo-check", WORD])
    assert (ended.code, ended.stdout.strip()) == (0, REPLY), ended.stderr
    (asked,) = arrived_at(bottles, "/backend-api/codex/responses")
    assert asked.header("authorization") == [f"Bearer {login}"]
    assert PROMPT.strip() in said_in(asked)
