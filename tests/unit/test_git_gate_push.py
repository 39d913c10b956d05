"""A push as a whole: each part of it is judged, refs' names and submodules' commits too, and its bounds hold."""

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
        return [("a", "some-rule")] if b"told by gitleaks" in b"".join(self.texts) else []


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
    env["GIT_INDEX_FILE"] = str(place / "index")
    return subprocess.run(
        ["git", *words], env=env, input=stdin, check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


def quarantine(place: Path) -> str:
    return str(place / MIRROR / "objects" / "tmp_objdir-incoming-1")


def judged(place: Path, links: list[bytes], *refs: str) -> list[str]:
    """Push a commit whose tree has these submodules; returns what the scan says."""
    rows = "".join(f"160000 commit {oid.hex()}\tmodule-{at}\n" for at, oid in enumerate(links))
    return judgement(place, git(place, "mktree", "--missing", stdin=rows), *refs)


def judgement(place: Path, tree: str, *refs: str, message: str = "m") -> list[str]:
    """Push a commit of this tree; returns what the scan says."""
    commit = git(place, "commit-tree", "-m", message, tree)
    updates = [f"{NONE} {commit} {ref}" for ref in refs or ("refs/heads/mine",)]
    request = {"quarantine": quarantine(place), "updates": updates, "known": {"TOKEN": SECRET, "KEY": HEX}}
    second = cast("Gitleaks", FakeGitleaks())
    answer = git_scan.Scan(Declared(str(place)), second, request).run()
    assert answer["accepted"] == (not answer["reasons"])
    return list(answer["reasons"])


def tree_of(place: Path, files: dict[str, str]) -> str:
    for path, content in files.items():
        oid = git(place, "hash-object", "-w", "--stdin", stdin=content)
        git(place, "update-index", "--add", "--cacheinfo", f"100644,{oid},{path}")
    return git(place, "write-tree")


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


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 12345\n"
PARTS: dict[str, tuple[dict[str, str], str, str]] = {
    "a file": ({"a": SECRET}, "m", "a: it holds TOKEN of this bottle"),
    "a path": ({f"x/{TOKEN}/a": "x"}, "m", "path names: it holds a credential"),
    "a message": ({"a": "x"}, f"m\n\n{TOKEN}", "it holds a credential"),
    "what gitleaks finds": ({"a": "told by gitleaks"}, "m", "a: gitleaks: some-rule"),
    "a pipeline": ({".github/workflows/ci.yml": "x"}, "m", ".github/workflows/ci.yml: it is acted on by the forge"),
    "a pointer": ({"a.bin": LFS}, "m", "a.bin: it is a Git LFS pointer"),
    "a submodule's address": ({".gitmodules": '[submodule "a"]\n\turl = file:///x\n'}, "m", "it names a submodule"),
    "a signature": ({"a": "x"}, "m\n\n-----BEGIN PGP SIGNATURE-----\nx\n", "it is signed"),
}


@pytest.mark.parametrize("name", PARTS)
def test_each_part_of_a_push_is_judged(place: Path, name: str) -> None:
    files, message, why = PARTS[name]
    said = judgement(place, tree_of(place, files), "refs/heads/mine", message=message)
    assert said
    assert any(why in each for each in said)
    assert not any(SECRET in each or TOKEN in each for each in said)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"max_objects": 3}, ""),
        ({"max_objects": 2}, "the push: it has 3 objects, and 2 is the most"),
        ({"max_object_bytes": 2 << 20}, ""),
        ({"max_object_bytes": (2 << 20) - 1}, "it has 2 MiB, and 1 is the most"),
        ({"max_bytes": 3 << 20}, ""),
        ({"max_bytes": 2 << 20}, "the push: it has 2 MiB, and 2 is the most"),
    ],
)
def test_the_bounds_of_a_push_hold(place: Path, policy: dict[str, int], why: str) -> None:
    """A commit, its tree, and a file of 2 MiB."""
    (place / "declared.json").write_text(json.dumps({"url": "ssh://git@example.org/a", "policy": policy}))
    said = judgement(place, tree_of(place, {"a": "x\n" * (1 << 20)}))
    assert len(said) == bool(why)
    assert why in "".join(said)


@pytest.mark.parametrize("form", ["PGP SIGNATURE", "PGP MESSAGE", "SSH SIGNATURE", "SIGNED MESSAGE"])
def test_what_git_takes_for_a_tags_signature_is_refused(place: Path, form: str) -> None:
    commit = git(place, "commit-tree", "-m", "m", tree_of(place, {"a": "x"}))
    signature = f"-----BEGIN {form}-----\n\nx\n-----END {form}-----\n"
    text = f"object {commit}\ntype commit\ntag v1\ntagger t <t@t> 1 +0000\n\nm\n{signature}"
    tag = git(place, "hash-object", "-t", "tag", "-w", "--stdin", stdin=text)
    git(place, "update-ref", "refs/tags/v1", tag)
    assert git(place, "for-each-ref", "--format=%(contents:signature)", "refs/tags").splitlines()[0] in signature
    assert "it is signed" in "".join(judgement(place, tree_of(place, {"a": "x"})))


def test_what_no_ref_leads_to_is_judged_as_well(place: Path) -> None:
    git(place, "hash-object", "-w", "--stdin", stdin=SECRET)
    assert "it holds TOKEN of this bottle" in "".join(judgement(place, tree_of(place, {"a": "x"})))


def test_reasons_have_a_bound(place: Path) -> None:
    policy = {"max_object_bytes": 1}
    (place / "declared.json").write_text(json.dumps({"url": "ssh://git@example.org/a", "policy": policy}))
    said = judgement(place, tree_of(place, {f"{at}": f"file {at}" for at in range(git_scan.MAX_REASONS + 5)}))
    assert len(said) == git_scan.MAX_REASONS
