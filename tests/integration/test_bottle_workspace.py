"""A directory goes into a bottle as a copy, and what the agent did to it comes back as a patch that a person reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, Ended, require_bottles
from tests.parts.upstream_tls import Upstream

WORK = r"""
printf 'one\nTWO\nthree\n' > text
printf 'new line' > 'new file.txt'
head -c 3000 /dev/urandom > binary
rm gone
chmod +x script.sh
ln -s text link
mkdir -p deep/er && echo x > deep/er/file
mkdir -p build && echo junk > build/out.o
echo 'all:; id' > Makefile
printf 'bytes\n' > "$(printf 'caf\303\251')"
git add -A && git -c user.name=a -c user.email=a@b commit -qm "the agent's"
"""


@dataclass
class Worked:
    """A bottle that an agent worked in, and the directory it was a copy of."""

    bottles: Bottles
    project: Path
    ended: Ended

    def diff(self, *options: str) -> str:
        done = self.bottles.command("diff", self.ended.identity, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.diff("--json"))
        return found


def project_at(path: Path) -> Path:
    path.mkdir()
    (path / "text").write_text("one\ntwo\nthree\n")
    (path / "gone").write_text("old\n")
    (path / "binary").write_bytes(bytes(range(256)) * 4)
    (path / "script.sh").write_text("#!/bin/sh\n")
    (path / ".gitignore").write_text("*.o\n")
    (path / ".env").write_text("TOKEN=x\n")
    for words in (
        ["init", "-q"],
        ["add", "-A", "-f"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", "-C", str(path), *words], check=True)
    return path


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    require_bottles()
    with Upstream(tmp_path_factory.mktemp("upstream"), ("api.test",)) as running:
        yield running


def bottles_at(path: Path, upstream: Upstream) -> Bottles:
    root = HomeRoot(path / "home")
    root.bottle("dev", "env:\n  A: b\n")
    root.agent("worker", "bottle: dev\n")
    return Bottles(root, upstream)


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Worked:
    directory = tmp_path_factory.mktemp("worked")
    bottles = bottles_at(directory, upstream)
    bottles.cwd = project_at(directory / "project")
    ended = bottles.run("worker", ["/bin/sh", "-ec", WORK], "--cwd")
    assert ended.code == 0, ended.stderr
    return Worked(bottles, bottles.cwd, ended)


def applied(project: Path) -> dict[str, bytes]:
    """What a directory holds but for git's own."""
    found = {}
    for path in sorted(project.rglob("*")):
        name = str(path.relative_to(project))
        if not name.startswith(".git/") and (path.is_file() or path.is_symlink()):
            found[name] = b"-> " + bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
    return found


def test_the_patch_is_one_that_git_applies_and_then_the_directory_is_the_agent_s(
    worked: Worked, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["cp", "-a", worked.project, clone], check=True)
    worked.bottles.cwd = tmp_path
    done = worked.bottles.command("pull", worked.ended.identity, "-o", "work.patch")
    worked.bottles.cwd = worked.project
    assert done.returncode == 0, done.stderr
    subprocess.run(["git", "-C", str(clone), "apply", "--whitespace=nowarn", str(tmp_path / "work.patch")], check=True)
    agent_s = applied(worked.bottles.state(worked.ended.identity) / "home" / "workspace")
    del agent_s["build/out.o"]
    assert applied(clone) == agent_s
    assert (clone / "script.sh").stat().st_mode & 0o777 == 0o755
    assert applied(worked.project) != agent_s


def test_what_was_copied_is_told_before_it_is_asked(worked: Worked) -> None:
    """WS10."""
    assert "the agent gets .env: settings that often hold secrets" in worked.ended.stderr


def test_what_tools_run_is_warned_about_and_what_git_ignores_is_left_out(worked: Worked) -> None:
    found = worked.summary()
    assert {"path": "Makefile", "why": "make runs it"} in found["warnings"]
    assert {"path": "script.sh", "why": "it can be run now"} in found["warnings"]
    assert (found["ignored"], found["whole"]) == (1, True)
    assert "build/out.o" not in str(found["changes"])


def test_git_s_own_directory_stays_in_the_bottle(worked: Worked) -> None:
    found = worked.summary()
    assert {each["path"].split("/")[0] for each in found["held"]} == {".git"}
    assert not [each for each in found["changes"] if each["path"].startswith(".git/")]


def test_the_diff_is_against_what_the_agent_got_not_against_what_is_there_now(worked: Worked) -> None:
    before = worked.diff()
    (worked.project / "text").write_text("a person's\n")
    try:
        assert worked.diff() == before
        refused = worked.bottles.command("pull", worked.ended.identity, "--apply", "-y")
        assert refused.returncode == 1
        assert "text: it was changed here" in refused.stderr
        assert (worked.project / "gone").exists()
    finally:
        (worked.project / "text").write_text("one\ntwo\nthree\n")


def test_changes_are_applied_whole(worked: Worked, upstream: Upstream, tmp_path: Path) -> None:
    bottles = bottles_at(tmp_path, upstream)
    bottles.cwd = project_at(tmp_path / "project")
    (bottles.cwd / "was" / "dir").mkdir(parents=True)
    (bottles.cwd / "was" / "dir" / "file").write_text("x")
    (bottles.cwd / "file").write_text("becomes a directory")
    ended = bottles.run(
        "worker", ["/bin/sh", "-ec", WORK + "rm -r was file; echo a > was; mkdir file; echo b > file/in"], "--cwd"
    )
    assert ended.code == 0, ended.stderr
    done = bottles.command("pull", ended.identity, "--apply", "-y")
    assert done.returncode == 0, done.stderr
    agent_s = applied(bottles.state(ended.identity) / "home" / "workspace")
    del agent_s["build/out.o"]
    assert applied(bottles.cwd) == agent_s
    again = bottles.command("pull", ended.identity, "--apply", "-y")
    assert again.returncode == 1
    assert "changed since the bottle was started" in again.stderr


def test_a_bottle_without_a_copy_says_so(upstream: Upstream, tmp_path: Path) -> None:
    bottles = bottles_at(tmp_path, upstream)
    ended = bottles.run("worker", ["/bin/true"])
    refused = bottles.command("diff", ended.identity)
    assert (refused.returncode, "--cwd" in refused.stderr) == (2, True)


def test_a_directory_that_is_no_repository_comes_back_as_well(upstream: Upstream, tmp_path: Path) -> None:
    bottles = bottles_at(tmp_path, upstream)
    bottles.cwd = tmp_path / "plain"
    bottles.cwd.mkdir()
    (bottles.cwd / "a").write_text("1\n")
    ended = bottles.run("worker", ["/bin/sh", "-c", "echo 2 > a; echo 3 > b"], "--cwd")
    done = bottles.command("pull", ended.identity, "-o", "-")
    assert done.returncode == 0, done.stderr
    subprocess.run(["patch", "-s", "-p1", "-d", str(bottles.cwd)], input=done.stdout, text=True, check=True)
    assert applied(bottles.cwd) == {"a": b"2\n", "b": b"3\n"}
