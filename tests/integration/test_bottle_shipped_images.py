"""The Dockerfiles that come with the providers, built as they stand by `bottle start`, and their programs started.

What they begin with (`FROM`) is a stand-in made here under that name: Debian's root file system, with this machine's
Node. What they fetch is real: Debian's packages and npm's, from a shelf in the engine's own network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottle.images import agent_image
from tests.conftest import require
from tests.parts.bottle_engine import BottleEngine
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import TOKEN, Bottles, Ended, identity_in, require_bottles
from tests.parts.fake_model_api import CHATGPT_HOST, CLAUDE_HOST, OPENAI_HOST, REPLY, fake_model_api
from tests.parts.lonely_internet import ADDRESS
from tests.parts.model_logins import PROMPT, WORD, arrived_at, installed, log_in
from tests.parts.package_shelf import pack, package_shelf
from tests.parts.upstream_tls import Upstream

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
SCRIPT = Path(__file__).parents[2] / "scripts" / "images.sh"
DEBIAN, NODE, BARE = "debian:bookworm-slim", "node:22-bookworm-slim", "opsexec-test/bare:1"
BUILD_S = 280.0
SERVED: list[str] = []
"""What was fetched from the shelf."""


def fetched() -> Path:
    """What scripts/images.sh fetched: a root file system, and Debian's packages."""
    done = subprocess.run([str(SCRIPT), "--path"], capture_output=True, text=True, timeout=20, check=False)
    require(done.returncode == 0, "needs what scripts/images.sh fetches")
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def bottles(bottle_engine: BottleEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    require_bottles()
    require("node", "needs node, for the image that the agents' are built on")
    there, directory = fetched(), tmp_path_factory.mktemp("shipped")
    packed = pack(installed(), directory)
    bottle_engine.ip("addr", "add", f"{ADDRESS}/32", "dev", "lo")
    SERVED.clear()
    shelf = package_shelf(ADDRESS, there / "debs", packed, SERVED)
    url = bottle_engine.within(shelf.__enter__)
    root = HomeRoot(directory / "root")
    for name, more in (("claude", ", auth_token: API_TOKEN"), ("codex", ", forward_host_credentials: true"),
                       ("command", "")):  # fmt: skip
        root.bottle(name, f"agent_provider: {{template: {name}{more}}}\n")
        root.agent(name, f"bottle: {name}\n", PROMPT)
    (directory / "upstream").mkdir()
    names = (CLAUDE_HOST, OPENAI_HOST, CHATGPT_HOST)
    upstream = Upstream(directory / "upstream", names, ADDRESS, handler=fake_model_api)
    bottle_engine.within(upstream.__enter__)
    try:
        _bases(bottle_engine, there / "base.tar", url, directory)
        yield Bottles(root, upstream, env={"CODEX_HOME": str(directory / "codex")}, engine=bottle_engine)
    finally:
        upstream.__exit__()
        shelf.__exit__(None, None, None)
        bottle_engine.ip("addr", "del", f"{ADDRESS}/32", "dev", "lo")
        built = [agent_image(None, f"{name}.Dockerfile", directory).name for name in ("claude", "codex", "command")]
        bottle_engine.docker("rmi", "-f", *built, NODE, DEBIAN, BARE, check=False)
        for tarball in directory.glob("*.tgz"):
            tarball.unlink()


def _bases(engine: BottleEngine, tar: Path, shelf: str, directory: Path) -> None:
    """Make what the Dockerfiles begin with."""
    engine.docker("import", str(tar), BARE, within_s=200)
    debian, node = directory / "debian", directory / "node"
    debian.mkdir()
    (debian / "sources.list").write_text(f"deb [trusted=yes] {shelf}/debs ./\n")
    (debian / "Dockerfile").write_text(
        f"FROM {BARE}\nRUN rm -rf /etc/apt/sources.list.d\nCOPY sources.list /etc/apt/sources.list\n"
    )
    engine.docker("build", "-q", "--network", "none", "-t", DEBIAN, str(debian), within_s=200)
    node.mkdir()
    npm = Path(shutil.which("npm") or "npm").resolve().parents[1]
    # Where this machine's npm asks is no business of the image's.
    shutil.copytree(npm, node / "npm", symlinks=True, ignore=shutil.ignore_patterns("npmrc"))
    shutil.copy2(Path(shutil.which("node") or "node").resolve(), node / "node")
    (node / "npmrc").write_text(f"registry={shelf}/\n")
    (node / "Dockerfile").write_text(
        f"FROM {DEBIAN}\nCOPY node /usr/local/bin/node\nCOPY npm /usr/local/lib/node_modules/npm\n"
        "COPY npmrc /usr/local/etc/npmrc\n"
        "RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm\n"
    )
    engine.docker("build", "-q", "--network", "none", "-t", NODE, str(node), within_s=200)
    shutil.rmtree(node)


def _started(bottles: Bottles, agent: str, program: list[str]) -> Ended:
    """Start an agent for the first time: its image is built then."""
    done = subprocess.run(
        bottles.start_argv(agent, program),
        env=bottles.environ(), cwd=bottles.cwd, capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip
    assert f"the {agent}.Dockerfile of this program" in done.stderr
    return Ended(done.returncode, done.stdout, done.stderr, identity_in(done.stderr))


def test_claude_s_image_is_built_as_it_comes_and_claude_code_answers(bottles: Bottles) -> None:
    ended = _started(bottles, "claude", ["-p", WORD])
    assert (ended.code, ended.stdout.strip()) == (0, REPLY), ended.stderr[-3000:]
    (asked,) = arrived_at(bottles, "/v1/messages")
    assert asked.header("authorization") == [f"Bearer {TOKEN}"]
    assert [each for each in SERVED if each.startswith("anthropic-ai-claude-code-linux-")], "by npm"
    assert [each for each in SERVED if each.startswith("ripgrep_")], "by apt-get"


def test_codex_s_image_is_built_as_it_comes_and_codex_answers(bottles: Bottles) -> None:
    login = log_in(Path(bottles.env["CODEX_HOME"]))
    ended = _started(bottles, "codex", ["exec", "--skip-git-repo-check", WORD])
    assert (ended.code, ended.stdout.strip()) == (0, REPLY), ended.stderr[-3000:]
    (asked,) = arrived_at(bottles, "/backend-api/codex/responses")
    assert asked.header("authorization") == [f"Bearer {login}"]
    assert len([each for each in SERVED if each.startswith("openai-codex-")]) == 2, "codex, and its program for linux"


def test_the_command_s_image_is_built_as_it_comes_and_holds_what_it_names(bottles: Bottles) -> None:
    script = "id -u; for each in git curl ssh python3; do command -v $each; done; ls /etc/ssl/certs/ca-certificates.crt"
    ended = _started(bottles, "command", ["/bin/sh", "-c", script])
    assert ended.code == 0, ended.stderr[-3000:]
    uid, *found = ended.stdout.split()
    assert (uid, [os.path.basename(each) for each in found]) == (
        "1000", ["git", "curl", "ssh", "python3", "ca-certificates.crt"],
    )  # fmt: skip
