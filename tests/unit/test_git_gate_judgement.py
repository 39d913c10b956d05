"""What the git gate's policy says of refs, paths, large files' pointers and submodules, one rule at a time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from opsexec.far import git_policy
from opsexec.far.git_objects import Change
from opsexec.far.git_run import MIRROR, Declared

NONE = "0" * 40


def run(directory: Path, *words: str) -> str:
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=trunk"]
    return subprocess.run(
        ["git", "-C", str(directory), *settings, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> tuple[Declared, dict[str, str]]:
    """A mirror whose default branch is `trunk`, and objects in it: two commits in a row, one aside, a blob."""
    place = tmp_path_factory.mktemp("declared").resolve()
    (place / "declared.json").write_text(json.dumps({"url": "ssh://git@example.org/a"}))
    work = place / "work"
    work.mkdir()
    run(work, "init", "-q")
    found = {}
    for name in ("first", "second"):
        run(work, "commit", "-q", "--allow-empty", "-m", name)
        found[name] = run(work, "rev-parse", "HEAD")
    found["aside"] = run(work, "commit-tree", "-m", "aside", "HEAD^{tree}")
    (work / "file").write_text("x")
    found["blob"] = run(work, "hash-object", "-w", "file")
    run(work, "tag", "-a", "-m", "t", "of-blob", found["blob"])
    run(work, "tag", "-a", "-m", "t", "of-commit", found["second"])
    found["of-blob"], found["of-commit"] = run(work, "rev-parse", "of-blob"), run(work, "rev-parse", "of-commit")
    (work / ".git").rename(place / MIRROR)
    return Declared(str(place)), found


def refusals(mirror: tuple[Declared, dict[str, str]], old: str, new: str, ref: str, **policy: object) -> list[str]:
    declared, found = mirror
    update = f"{found.get(old, old)} {found.get(new, new)} {ref}"
    quarantine = str(Path(declared.git_dir) / "objects")
    return list(git_policy.ref_refusals(declared, {**git_policy.DEFAULTS, **policy}, quarantine, [update]))


@pytest.mark.parametrize(
    ("old", "new", "ref", "policy", "says"),
    [
        (NONE, "first", "refs/heads/mine", {}, ""),
        (NONE, "of-commit", "refs/tags/v1", {}, ""),
        ("first", "second", "refs/heads/mine", {}, ""),
        ("second", "aside", "refs/heads/mine", {}, ""),
        ("second", NONE, "refs/heads/mine", {}, ""),
        ("second", NONE, "refs/tags/v1", {}, ""),
        (NONE, "first", "refs/notes/commits", {}, "only branches and tags"),
        (NONE, "first", "refs/pull/1/head", {}, "only branches and tags"),
        (NONE, "first", "HEAD", {}, "only branches and tags"),
        (NONE, "first", "refs/heads/trunk", {}, "a protected branch isn't pushed to"),
        (NONE, "first", "refs/heads/main", {}, "a protected branch isn't pushed to"),
        (NONE, "first", "refs/heads/master", {}, "a protected branch isn't pushed to"),
        ("first", NONE, "refs/heads/main", {}, "a protected branch isn't deleted"),
        (NONE, "first", "refs/heads/main", {"protected": ["HEAD"]}, ""),
        (NONE, "first", "refs/heads/trunk", {"protected": ["HEAD"]}, "a protected branch"),
        (NONE, "first", "refs/heads/trunk", {"protected": ["main"]}, ""),
        (NONE, "first", "refs/heads/release/1/x", {"protected": ["release/*"]}, "a protected branch"),
        (NONE, "first", "refs/heads/releases", {"protected": ["release/*"]}, ""),
        (NONE, "first", "refs/heads/a[b]", {"protected": ["a[b]"]}, "a protected branch"),
        ("second", NONE, "refs/heads/mine", {"deletes": False}, "deleting refs isn't allowed"),
        ("first", "second", "refs/tags/v1", {}, "a tag that exists isn't moved"),
        (NONE, "blob", "refs/tags/v1", {}, "a ref must lead to a commit"),
        (NONE, "of-blob", "refs/tags/v1", {}, "a ref must lead to a commit"),
        (NONE, "1" * 40, "refs/heads/mine", {}, "a ref must lead to a commit"),
        ("first", "second", "refs/heads/mine", {"forced": False}, ""),
        ("second", "first", "refs/heads/mine", {"forced": False}, "forced pushes aren't allowed"),
        (NONE, "aside", "refs/heads/mine", {"forced": False}, ""),
    ],
)
def test_a_ref_is_pushed_where_the_policy_has_it(
    mirror: tuple[Declared, dict[str, str]], old: str, new: str, ref: str, policy: dict[str, object], says: str
) -> None:
    found = refusals(mirror, old, new, ref, **policy)
    assert len(found) == bool(says)
    assert says in "".join(found)


def test_an_upstream_without_a_branch_has_none_to_protect(tmp_path: Path) -> None:
    place = tmp_path.resolve()
    (place / "declared.json").write_text(json.dumps({"url": "ssh://git@example.org/a"}))
    work = place / "work"
    work.mkdir()
    run(work, "init", "-q")
    commit = run(work, "commit-tree", "-m", "x", run(work, "write-tree"))
    (work / ".git").rename(place / MIRROR)
    assert refusals((Declared(str(place)), {}), NONE, commit, "refs/heads/main") == []


def test_what_nobody_declared_is_as_safe_as_it_can_be_without_being_in_the_way() -> None:
    found = {name: git_policy.DEFAULTS[name] for name in ("lfs", "protected_paths", "protected", "signatures")}
    assert found == {
        "lfs": False,
        "protected_paths": True,
        "protected": ["HEAD", "main", "master"],
        "signatures": False,
    }
    assert (git_policy.DEFAULTS["max_object_bytes"], git_policy.DEFAULTS["max_bytes"]) == (104857600, 2147483648)


def test_a_policy_is_what_was_declared_over_the_defaults(mirror: tuple[Declared, dict[str, str]]) -> None:
    declared = mirror[0]
    before = declared.policy
    try:
        declared.policy = {"lfs": True, "unheard-of": 1}
        assert git_policy.settings(declared) == {**git_policy.DEFAULTS, "lfs": True}
    finally:
        declared.policy = before


ACTED_ON = [
    "CODEOWNERS", "docs/CODEOWNERS", ".lfsconfig", "a/.lfsconfig", ".github/workflows", ".github/workflows/x.yml",
    ".GitHub/Workflows/x.yml", ".github/actions/a/action.yml", ".gitea/workflows/x", ".forgejo/workflows/x",
    ".circleci/config.yml", ".buildkite/pipeline.yml", ".gitlab/agents/x", ".woodpecker/x.yml", ".semaphore/x.yml",
    ".tekton/x.yaml", ".github/dependabot.yml", ".github/renovate.json", ".gitlab-ci.yml", ".gitlab-ci.yaml",
    "azure-pipelines.yml", "bitbucket-pipelines.yml", "cloudbuild.yaml", "appveyor.yml", ".appveyor.yml", ".travis.yml",
    ".drone.yml", ".woodpecker.yml", ".cirrus.yml", "buildspec.yml", "wercker.yml", "codefresh.yml", "Jenkinsfile",
    "Jenkinsfile.release",
]  # fmt: skip
NOT_ACTED_ON = [
    "CODEOWNERS.md", "xcodeowners", ".github/workflowsx", "a/.github/workflows/x", ".github/dependabot.yml/x",
    "a/.gitlab-ci.yml", ".gitlab-cixyml", ".travis.yml.bak", "a/Jenkinsfile", "Jenkinsfiles", "src/main.py",
]  # fmt: skip


@pytest.mark.parametrize("path", ACTED_ON)
def test_what_a_forge_acts_on_by_itself_is_a_persons_to_commit(path: str) -> None:
    change = Change("100644", "1" * 40, path.encode())
    assert git_policy.path_refusal(git_policy.DEFAULTS, change)
    assert git_policy.path_refusal({**git_policy.DEFAULTS, "protected_paths": False}, change) is None


@pytest.mark.parametrize("path", NOT_ACTED_ON)
def test_what_only_looks_like_it_passes(path: str) -> None:
    assert git_policy.path_refusal(git_policy.DEFAULTS, Change("100644", "1" * 40, path.encode())) is None


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", True),
        (b"version https://hawser.github.com/spec/v1\n", True),
        (b"version http://git-lfs.github.com/spec/v1\n", True),
        (b"version http://git-media.io/v/2\noid sha256:1\n", True),
        (b"\nversion https://git-lfs.github.com/spec/v1\n", True),
        (
            " \t\r\n\v\f\x85\xa0\u1680\u2003\u2028\u3000".encode() * 40
            + b"version https://git-lfs.github.com/spec/v1\n",
            True,
        ),
        (b"ext-0-a sha256:1\r\n\nversion https://git-lfs.github.com/spec/v1\n", True),
        (b"-version https://git-lfs.github.com/spec/v1\n", False),
        (b"\n" * 1024 + b"version https://git-lfs.github.com/spec/v1\n", False),
        (b"version https://git-lfs.github.com/", False),
        (b"version https://git-lfsxgithub.com/spec/v1\n", False),
        (b"see version https://git-lfs.github.com/spec/v1\n", False),
    ],
)
def test_a_pointer_to_what_the_gate_does_not_see_is_refused(content: bytes, refused: bool) -> None:
    assert (git_policy.blob_refusal(git_policy.DEFAULTS, content) is not None) == refused
    assert git_policy.blob_refusal({**git_policy.DEFAULTS, "lfs": True}, content) is None


@pytest.mark.parametrize(
    ("path", "read"),
    [
        (b".gitmodules", True), (b"a/b/.gitmodules", True), (b".GitModules", True),
        (b"gitmodules", False), (b"a.gitmodules", False), (b".gitmodules/a", False), (b".gitmodules.old", False),
    ],
)  # fmt: skip
def test_where_submodules_addresses_are_read(path: bytes, read: bool) -> None:
    assert git_policy.modules(Change("100644", "1" * 40, path)) is read
