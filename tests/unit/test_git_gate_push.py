"""What stands in a push besides files and messages: the names of refs, and the commits of a tree's submodules."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from opsexec.far import git_scan
from opsexec.far.git_run import MIRROR, Declared

if TYPE_CHECKING:
    from opsexec.far.git_leaks import Gitleaks

NONE = "0" * 40
SECRET = "tok-REAL-0123456789abcdef"
HEX = "7f3a91c05d2e48b6a1f09c7d3e5b82641a0d9fce"
TOKEN = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"


class FakeGitleaks:
    def __init__(self) -> None:
        self.texts: list[bytes] = []

    def add(self, label: str, text: bytes) -> None:
        self.texts.append(text)

    def findings(self) -> list[tuple[str, str]]:
        return []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(git_scan, "_limit_self", lambda: None)
    place = tmp_path.resolve()
    (place / "declared.json").write_text(json.dumps({"url": "ssh://git@example.org/a"}))
    subprocess.run(["git", "init", "-q", "--bare", str(place / MIRROR)], check=True, capture_output=True)
    (place / MIRROR / "objects" / "tmp_objdir-incoming-1").mkdir()
    return place


def git(place: Path, *words: str, stdin: str = "") -> str:
    """Run git on the quarantine."""
    people = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **people, "GIT_DIR": str(place / MIRROR), "GIT_OBJECT_DIRECTORY": quarantine(place)}
    return subprocess.run(
        ["git", *words], env=env, input=stdin, check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


def quarantine(place: Path) -> str:
    return str(place / MIRROR / "objects" / "tmp_objdir-incoming-1")


def judged(place: Path, links: list[bytes], *refs: str) -> list[str]:
    """Push a commit whose tree has these submodules; returns what the scan says."""
    rows = "".join(f"160000 commit {oid.hex()}\tmodule-{at}\n" for at, oid in enumerate(links))
    commit = git(place, "commit-tree", "-m", "m", git(place, "mktree", "--missing", stdin=rows))
    updates = [f"{NONE} {commit} {ref}" for ref in refs or ("refs/heads/mine",)]
    request = {"quarantine": quarantine(place), "updates": updates, "known": {"TOKEN": SECRET, "KEY": HEX}}
    second = cast("Gitleaks", FakeGitleaks())
    answer = git_scan.Scan(Declared(str(place)), second, request).run()
    assert answer["accepted"] == (not answer["reasons"])
    return list(answer["reasons"])


def in_links(value: bytes) -> list[bytes]:
    return [value[at : at + 20].ljust(20, b"\n") for at in range(0, len(value), 20)]


@pytest.mark.parametrize(
    ("links", "what"),
    [
        (in_links(SECRET.encode()), "TOKEN of this bottle"),
        (in_links(TOKEN.encode()), "a credential (github token)"),
        ([bytes.fromhex(HEX)], "KEY of this bottle"),
    ],
)
def test_no_value_stands_where_a_submodules_commit_does(place: Path, links: list[bytes], what: str) -> None:
    reasons = judged(place, links)
    assert len(reasons) == 1
    assert reasons[0].startswith("a submodule in tree")
    assert what in reasons[0]


def test_submodules_themselves_pass(place: Path) -> None:
    links = [bytes.fromhex("e83c5163316f89bfbde7d9ab23ca2e25604af290"), bytes(range(100, 120))]
    assert judged(place, links) == []


@pytest.mark.parametrize(
    "refs",
    [
        (f"refs/heads/{TOKEN[:20]}/{TOKEN[20:]}",),
        (f"refs/heads/a/{SECRET}",),
        ("refs/heads/fine", f"refs/tags/{SECRET}"),
        (f"refs/heads/a-{SECRET[:14]}", f"refs/tags/{SECRET[14:]}-b"),
        (f"refs/heads/{TOKEN[:20]}", f"refs/heads/{TOKEN[20:]}"),
    ],
)
def test_no_value_stands_in_the_names_of_refs(place: Path, refs: tuple[str, ...]) -> None:
    reasons = judged(place, [], *refs)
    assert len(reasons) == 1
    assert reasons[0].startswith("a ref's name: it holds ")


def test_ordinary_names_of_refs_pass(place: Path) -> None:
    assert judged(place, [], "refs/heads/fix/a-b", "refs/heads/feature/JIRA-1234/x", "refs/tags/v1.2.3") == []
