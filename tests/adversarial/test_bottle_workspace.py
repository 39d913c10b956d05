"""What an agent leaves in its copy of a directory, by the attack's id; what could run on the host stays."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parts.bottle_backends import BACKENDS, scene
from tests.parts.bottle_running import Bottles

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

HOSTILE = r"""
set -e
ln -s /etc/passwd absolute; ln -s ../../outside up; ln -s .git/hooks into-git; ln -s ../project/x through
ln -sfn /etc was-a-directory-link; ln -s .claude to-claude; ln -s sub/../../x down-up
ln README hard; mkfifo pipe; python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('sock')"
printf '#!/bin/sh\ntouch /tmp/ran\n' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout
git config core.fsmonitor 'touch /tmp/ran; false'; git config core.sshCommand 'touch /tmp/ran'
git config filter.x.smudge 'touch /tmp/ran'; git config include.path ../evil.config; git config core.hooksPath hooks
printf '* filter=x diff=x\n' > .gitattributes; printf '[submodule "a"]\n\tpath = a\n\turl = ext::sh\n' > .gitmodules
mkdir -p nested && git init -q nested && echo x > nested/file && git -C nested config core.fsmonitor 'touch /tmp/ran'
mkdir -p bare/objects bare/refs && echo 'ref: refs/heads/x' > bare/HEAD
printf '[core]\n\tfsmonitor = id\n' > bare/config
mkdir -p tree && echo 'gitdir: /tmp/evil' > tree/.git
mkdir -p .GIT/hooks sub/.Git '.git ' 'GIT~1' && echo x > .GIT/hooks/a && echo x > sub/.Git/config
echo x > '.git /config'
echo x > 'GIT~1/config'; mkdir -p "$(printf '.g\342\200\214it')"; echo x > "$(printf '.g\342\200\214it/config')"
mkdir -p .vscode .idea .claude .github/workflows .cursor .husky
for each in .vscode/tasks.json .idea/w.xml .claude/settings.json .github/workflows/x.yml .cursor/r .husky/pre-commit \
  .envrc .mcp.json CLAUDE.md AGENTS.md sub/CLAUDE.md .gitlab-ci.yml Jenkinsfile .npmrc sitecustomize.py \
  .pre-commit-config.yaml
do echo evil > $each; done
for each in Makefile package.json conftest.py setup.py; do echo evil > $each; done
echo 1 > readme; mkdir -p Case case; echo 1 > Case/x; echo 2 > case/x
truncate -s 1T sparse || truncate -s 9G sparse; head -c 40000000 /dev/zero > large
python3 - <<'END'
import os
os.makedirs('many'); [open('many/%d' % each, 'w').close() for each in range(2000)]
os.setxattr('README', 'user.evil', b'x')
os.chmod('setuid', 0o6777)
open('ansi\x1b[2J', 'w').close(); open('line\nbreak', 'w').close()
open(b'raw\xff', 'w').close(); open('bidi\u202eexe', 'w').write('x')
open('shown', 'w').write('plain \x1b[2J \u202e text\n')
END
echo changed >> README
"""


@dataclass
class Left:
    """What the agent left, and what the commands say of it."""

    bottles: Bottles
    identity: str
    project: Path
    summary: dict[str, Any]
    patch: bytes
    said: str
    provider: str

    @property
    def coming(self) -> set[str]:
        return {each["path"] for each in self.summary["changes"]}

    @property
    def held(self) -> dict[str, str]:
        return {each["path"]: each["why"] for each in self.summary["held"]}


@pytest.fixture(scope="module", params=BACKENDS)
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    directory = tmp_path_factory.mktemp("left")
    with scene(request, request.param, tmp_path_factory.mktemp("upstream"), ("api.test",)) as stage:
        bottles = stage.bottles(directory / "home", dev="env:\n  A: b\n")
        bottles.root.agent("worker", "bottle: dev\n")
        project = directory / "project"
        (project / "sub").mkdir(parents=True)
        (project / "README").write_text("hello\n")
        (project / "setuid").write_text("x\n")
        (project / ".env").write_text("A=b\n")
        (project / "deploy.pem").write_text("x\n")
        (project / "was-a-directory-link").symlink_to("sub")
        git = ["git", "-C", str(project)]
        for words in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
        ):
            subprocess.run([*git, *words], check=True)
        subprocess.run([*git, "remote", "add", "origin", "https://me:hunter2@git.test/x"], check=True)
        bottles.cwd = project
        ended = bottles.run("worker", ["/bin/bash", "-c", HOSTILE], "--cwd")
        assert ended.code == 0, ended.stderr
        told = bottles.command("diff", ended.identity, "--json")
        assert told.returncode == 0, told.stderr
        argv = bottles.argv("diff", ended.identity)
        patch = subprocess.run(argv, env=bottles.environ(), cwd=project, capture_output=True, timeout=60, check=True)
        said = ended.stderr + patch.stderr.decode()
        yield Left(bottles, ended.identity, project, json.loads(told.stdout), patch.stdout, said, stage.bottle(""))


ASTRAY = ["absolute", "up", "into-git", "through", "was-a-directory-link", "to-claude", "down-up"]


@pytest.mark.parametrize("name", ASTRAY)
def test_ws1_a_link_that_leads_out_or_to_what_is_held_doesn_t_come(left: Left, name: str) -> None:
    assert name in left.held
    assert name not in left.coming


def test_ws1_what_was_a_link_s_target_is_not_in_the_patch(left: Left) -> None:
    assert b"root:x:0:0" not in left.patch


def test_ws1_no_link_of_the_agent_s_is_followed_when_its_bottle_is_looked_at_or_started_again(left: Left) -> None:
    """The copy itself gives way to a link, and the agent's files to links at the host's."""
    state = left.bottles.state(left.identity)
    kept, workspace = state / "home" / "aside", state / "home" / "workspace"
    victim = left.project.parent / "victim"
    victim.mkdir(exist_ok=True)
    (victim / "file").write_text("the host's\n")
    os.rename(workspace, kept)
    workspace.symlink_to(victim)
    config = state / "home" / ".gitconfig"
    config.symlink_to(victim / "file")
    try:
        looked = left.bottles.command("diff", left.identity)
        assert (looked.returncode, "the host's" in looked.stdout) == (1, False)
        left.bottles.root.bottle("dev", left.provider + "git-gate:\n  user: {name: A, email: a@b}\n")
        again = left.bottles.command("resume", left.identity, "-y")
        assert (victim / "file").read_text() == "the host's\n", again.stderr
        assert sorted(path.name for path in victim.iterdir()) == ["file"]
    finally:
        config.unlink()
        workspace.unlink()
        os.rename(kept, workspace)


def test_ws1_what_is_neither_file_nor_link_nor_directory_is_named_and_never_opened(left: Left) -> None:
    assert (left.held["pipe"], left.held["sock"]) == ("a fifo", "a socket")


def test_ws3_no_path_leaves_the_directory(left: Left) -> None:
    for line in left.patch.splitlines():
        if line.startswith((b"+++ b/", b"--- a/", b"diff --git ")):
            assert b"/../" not in line
            assert b" /" not in line.replace(b"/dev/null", b"")


@pytest.mark.parametrize("name", [".git/hooks/post-checkout", ".git/config"])
def test_ws4_ws5_git_s_own_directory_never_comes(left: Left, name: str) -> None:
    assert name in left.held
    refused = left.bottles.command("diff", left.identity, "--take", name)
    assert refused.returncode == 2
    assert b".git/" not in left.patch.replace(b"diff --git ", b"")


@pytest.mark.parametrize(
    "top", ["nested/.git", "bare", "tree/.git", ".GIT", "sub/.Git", ".git ", "GIT~1", ".g\u200cit"]
)
def test_ws5_nor_does_what_git_would_take_for_one(left: Left, top: str) -> None:
    assert any(path == top or path.startswith(f"{top}/") for path in left.held)
    assert not [path for path in left.coming if path == top or path.startswith(f"{top}/")]


@pytest.mark.parametrize("name", [".gitattributes", ".gitmodules"])
def test_ws5_what_steers_git_from_the_tree_waits_to_be_asked_for(left: Left, name: str) -> None:
    assert "git" in left.held[name]


def test_ws5_no_git_ran_on_the_agent_s_repository(left: Left) -> None:
    assert not Path("/tmp/ran").exists()


ASKED = [
    ".vscode", ".idea", ".claude", ".github", ".cursor", ".husky", ".envrc", ".mcp.json", "CLAUDE.md", "AGENTS.md",
    "sub/CLAUDE.md", ".gitlab-ci.yml", "Jenkinsfile", ".npmrc", "sitecustomize.py", ".pre-commit-config.yaml",
]  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_ws6_what_runs_or_steers_an_agent_on_the_host_waits_to_be_asked_for(left: Left, name: str) -> None:
    assert name in left.held
    assert not [path for path in left.coming if path == name or path.startswith(f"{name}/")]


def test_ws6_and_comes_when_it_is_named(left: Left) -> None:
    done = left.bottles.command("diff", left.identity, "--take", "CLAUDE.md", "--take", ".github/workflows", "--json")
    found = json.loads(done.stdout)
    paths = {each["path"] for each in found["changes"]}
    assert paths - left.coming == {"CLAUDE.md", ".github/workflows/x.yml"}
    assert {"path": "CLAUDE.md", "why": "it instructs a coding agent"} in found["warnings"]


@pytest.mark.parametrize("name", ["Makefile", "package.json", "conftest.py", "setup.py"])
def test_ws6_what_people_s_tools_run_comes_with_a_warning(left: Left, name: str) -> None:
    assert name in left.coming
    assert name in {each["path"] for each in left.summary["warnings"]}


def test_ws8_two_names_that_are_one_elsewhere_don_t_come(left: Left) -> None:
    assert {"readme", "README", "Case", "case"} <= set(left.held)
    assert not {path for path in left.coming if path.lower().startswith(("readme", "case"))}


def test_ws9_what_is_too_large_is_named_and_not_read(left: Left) -> None:
    assert "over the 32 MiB" in left.held["sparse"]
    assert "over the 32 MiB" in left.held["large"]
    assert len(left.patch) < 16 << 20


def test_ws9_a_directory_that_is_too_large_doesn_t_start(left: Left, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    bottles = dataclasses.replace(left.bottles, cwd=tmp_path)
    ended = bottles.run("worker", ["/bin/true"], "--cwd")
    assert (ended.code, "MiB long" in ended.stderr, ended.identity) == (1, True, "")


def test_ws10_secrets_that_go_in_are_told_before_it_starts(left: Left) -> None:
    for line in (
        "the agent gets .env:",
        "the agent gets deploy.pem:",
        "the agent gets .git/config: an address with a login",
    ):
        assert line in left.said
    assert "hunter2" not in left.said


def test_ws11_attributes_modes_and_names_that_aren_t_text_stay_behind(left: Left) -> None:
    assert "setuid" in left.coming
    modes = {line.rpartition(b" ")[2] for line in left.patch.splitlines() if b" mode 1" in line}
    assert modes <= {b"100644", b"100755", b"120000"}
    assert b"user.evil" not in left.patch
    assert {path for path, why in left.held.items() if "control character" in why} == {"ansi\x1b[2J", "line\nbreak"}


def test_ws11_what_is_applied_is_the_operator_s_own_plain_file(left: Left, tmp_path: Path) -> None:
    project = left.project
    done = left.bottles.command("pull", left.identity, "--apply", "-y")
    assert done.returncode == 0, done.stderr
    info = (project / "setuid").stat()
    assert (oct(info.st_mode & 0o7777), info.st_uid) == ("0o755", os.geteuid())
    assert not [path for path in project.rglob("*") if path.is_symlink() and path.name in ASTRAY[:4]]
    assert not (project / "CLAUDE.md").exists()
    assert (project / ".git" / "hooks" / "post-checkout").exists() is False
    status = subprocess.run(
        ["git", "-C", str(project), "status", "--short"], capture_output=True, text=True, check=True
    )
    assert "Makefile" in status.stdout
    assert not Path("/tmp/ran").exists()


def test_lg1_a_terminal_shows_escapes_for_what_could_steer_it(left: Left) -> None:
    leader, follower = os.openpty()
    argv = left.bottles.argv("diff", left.identity)
    process = subprocess.Popen(argv, env=left.bottles.environ(), stdout=follower, stderr=follower, stdin=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:
            break
        shown += block
    os.close(leader)
    assert process.wait(20) == 0
    assert b"\x1b" not in shown
    assert "\u202e".encode() not in shown
    assert rb"plain \x1b[2J \u202e text" in shown
