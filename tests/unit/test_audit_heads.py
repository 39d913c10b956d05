"""Signed heads: what was cut off, written anew or vouched for by another key is found out, and named."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import AgentUnable
from agent.heads import HeadSigner, open_signer
from opsexec.audit import AuditLog, verify
from opsexec.audit.record import GENESIS, seal
from opsexec.audit_heads import check_heads, heads_path, read_heads
from opsexec.audit_heads.check import HeadsReport
from opsexec.audit_heads.keys import find_keys
from opsexec.cli import main
from opsexec.errors import UsageError
from tests.parts.host_key import host_key, public, ssh_keygen
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return host_key(tmp_path_factory.mktemp("key"))


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def line(number: int) -> dict[str, object]:
    return {"host": "web1", "listener": "unix:/s", "principal": "unix:a", "reason": f"line {number}"}


async def write(path: Path, key: Path, lines: int = 5, *, signed: int | None = None, max_bytes: int = 1 << 20) -> None:
    """Append lines, and sign after the `signed`th of them (None: after the last)."""
    with AuditLog.open(path, fsync="never", max_bytes=max_bytes) as log:
        signer = HeadSigner(log, "web1", key, 60.0)
        signer.open()
        for number in range(lines):
            log.append(line(number))
            if number + 1 == (lines if signed is None else signed):
                await signer.sign()


def check(path: Path, key: Path, **how: str) -> HeadsReport:
    return check_heads(path, lambda host: find_keys(str(key) + ".pub", host), **how)


async def test_a_chain_is_vouched_for_by_its_hosts_key(log_path: Path, key: Path) -> None:
    await write(log_path, key, 5, signed=3)
    report = check(log_path, key)
    assert report.ok
    assert report.signed is not None
    assert (report.signed.said.seq, report.signed.said.host, report.unsigned) == (2, "web1", 2)


async def test_other_tools_can_check_a_head_too(log_path: Path, key: Path, tmp_path: Path) -> None:
    await write(log_path, key)
    (_, _, head) = next(read_heads(log_path))
    assert head is not None
    (tmp_path / "signature").write_text(head.signature)
    (tmp_path / "signers").write_text(f"web1 {public(key)}\n")
    words = ["-Y", "verify", "-n", "opsexec-audit", "-I", "web1", "-f", str(tmp_path / "signers")]
    assert "Good" in ssh_keygen(*words, "-s", str(tmp_path / "signature"), stdin=head.statement)


async def test_lines_cut_off_below_the_signed_head_are_missed(log_path: Path, key: Path) -> None:
    await write(log_path, key, 5)
    lines = log_path.read_bytes().splitlines(keepends=True)
    log_path.write_bytes(b"".join(lines[:4]))
    assert verify(log_path).ok  # the chain alone can't tell
    report = check(log_path, key)
    assert report.chain.problem is not None
    assert report.chain.problem.why == "missing"


async def test_a_cut_is_not_made_good_by_an_agent_that_goes_on_and_signs(log_path: Path, key: Path) -> None:
    await write(log_path, key, 5)
    log_path.write_bytes(b"".join(log_path.read_bytes().splitlines(keepends=True)[:2]))
    for lines in (1, 1, 10):
        await write(log_path, key, lines)
        report = check(log_path, key)
        assert report.chain.ok
        assert report.problem is not None
        assert report.problem.why == "changed"


async def test_a_chain_that_was_written_anew_is_not_the_one_that_was_signed(log_path: Path, key: Path) -> None:
    await write(log_path, key, 5)
    prev, anew = GENESIS, b""
    for number, raw in enumerate(log_path.read_bytes().splitlines()):
        fields = json.loads(raw)
        for name in ("hash", "prev", "seq", "ts"):
            del fields[name]
        fields["principal"] = "unix:nobody"
        sealed, prev = seal(fields, number, prev)
        anew += sealed
    log_path.write_bytes(anew)
    assert verify(log_path).ok
    report = check(log_path, key)
    assert report.chain.problem is not None
    assert report.chain.problem.why == "head"


async def test_a_head_that_another_key_has_signed_vouches_for_nothing(
    log_path: Path, key: Path, tmp_path: Path
) -> None:
    await write(log_path, host_key(tmp_path, "other"))
    report = check(log_path, key)
    assert report.problem is not None
    assert (report.problem.why, report.problem.line) == ("signature", 1)
    assert "web1" in report.problem.detail


async def test_a_signature_over_something_else_vouches_for_nothing(log_path: Path, key: Path, tmp_path: Path) -> None:
    await write(log_path, key)
    (_, _, head) = next(read_heads(log_path))
    assert head is not None
    other = ssh_keygen("-q", "-Y", "sign", "-n", "file", "-f", str(key), stdin=head.statement)
    keys = find_keys(f"{key}.pub", "web1")
    assert keys.vouch(head.statement, head.signature)
    assert not keys.vouch(head.statement, other)
    assert not keys.vouch(head.statement.replace("web1", "web2"), head.signature)
    for nonsense in ("", "-----BEGIN SSH SIGNATURE-----\n", head.signature[:200], "\udcff"):
        assert not keys.vouch(head.statement, nonsense)


@pytest.mark.parametrize(
    ("change", "why", "at"),
    [
        (lambda lines: [lines[0], *lines[2:]], "heads", 2),
        (lambda lines: [lines[0].replace(b"web1", b"web2"), *lines[1:]], "heads", 2),
        (lambda lines: [*lines[:2], b"{}\n"], "heads", 3),
        (lambda lines: [*lines[:2], b"x" * 20_000 + b"\n"], "heads", 3),
        (lambda lines: [*lines[:2], lines[2].replace(b'\\"seq\\":2', b'\\"seq\\":1')], "signature", 3),
        (lambda lines: [], "unsigned", 1),
    ],
)
async def test_changed_heads_are_found_out_and_named(
    log_path: Path, key: Path, change: Callable[[list[bytes]], list[bytes]], why: str, at: int
) -> None:
    with AuditLog.open(log_path, fsync="never") as log:
        signer = HeadSigner(log, "web1", key, 60.0)
        for number in range(3):
            log.append(line(number))
            await signer.sign()
    heads = heads_path(log_path)
    lines = heads.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    assert check(log_path, key).ok
    heads.write_bytes(b"".join(change(lines)))
    report = check(log_path, key)
    assert not report.ok
    assert report.problem is not None
    assert (report.problem.why, report.problem.line) == (why, at)


async def test_a_head_is_its_own_hosts_alone(log_path: Path, key: Path) -> None:
    await write(log_path, key)
    report = check(log_path, key, host="web2")
    assert report.problem is not None
    assert report.problem.why == "host"


async def test_a_log_that_begins_after_the_last_signed_line_is_not_vouched_for(
    log_path: Path, key: Path, tmp_path: Path
) -> None:
    await write(log_path, key, 3)
    with AuditLog.open(log_path, fsync="never", max_bytes=600, keep=1) as log:
        for number in range(30):
            log.append(line(number))
    assert verify(log_path).ok
    report = check(log_path, key)
    assert report.problem is not None
    assert (report.problem.why, "begins at line" in report.problem.detail) == ("unsigned", True)


# -- the signer -----------------------------------------------------------------------------------------------------


async def test_a_rotation_is_signed_at_once_and_idleness_is_not(
    log_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.heads.LOOK_S", 0.02)
    with AuditLog.open(log_path, fsync="never", max_bytes=2000) as log:
        signer = HeadSigner(log, "web1", key, 3600.0)
        attending = asyncio.create_task(signer.attend())
        log.append(line(0))
        await eventually(heads_path(log_path).exists, within_s=10, what="the first head is signed")
        inode = log_path.stat().st_ino
        while log_path.stat().st_ino == inode:
            log.append(line(1))
        await eventually(lambda: len(list(read_heads(log_path))) == 2, within_s=10, what="the rotation is signed")
        log.append(line(2))
        for _ in range(10):
            await asyncio.sleep(0.02)  # it looks some times, and finds nothing that is due
        assert len(list(read_heads(log_path))) == 2
        attending.cancel()
        await asyncio.wait([attending])
    assert check(log_path, key).ok


async def test_an_agent_that_stops_while_it_signs_leaves_whole_heads(log_path: Path, key: Path) -> None:
    with AuditLog.open(log_path, fsync="never") as log:
        signer = HeadSigner(log, "web1", key, 60.0)
        for number in range(5):
            log.append(line(number))
            signing = asyncio.create_task(signer.sign())
            await asyncio.sleep(0.001 * number)  # broken off each time at another place
            signing.cancel()
            log.append(line(number))
            await signer.sign()
    report = check(log_path, key)
    assert report.ok, report
    assert report.unsigned == 0


async def test_the_next_agent_goes_on_after_half_a_line(log_path: Path, key: Path) -> None:
    await write(log_path, key, 2)
    with heads_path(log_path).open("ab") as file:
        file.write(b'{"signature": "----')
    assert check(log_path, key).ok
    await write(log_path, key, 2)
    report = check(log_path, key)
    assert report.ok
    assert report.heads == 2


@pytest.mark.parametrize("failing", ["fdatasync", "replace", "ftruncate"])
async def test_heads_that_could_not_be_written_break_no_chain_of_heads(
    failing: str, log_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.heads.MAX_HEADS_BYTES", 600)

    real = os.fdatasync

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def fails_for_heads(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(heads_path(log_path)):
            fails()
        real(fd)

    with AuditLog.open(log_path, fsync="never") as log:
        signer = HeadSigner(log, "web1", key, 60.0)
        for number in range(6):
            log.append(line(number))
            if number % 2:
                with monkeypatch.context() as broken:
                    if failing != "replace":
                        broken.setattr(os, "fdatasync", fails_for_heads)
                    if failing != "fdatasync":
                        broken.setattr(os, failing, fails)
                    await signer.sign()
            await signer.sign()
    report = check(log_path, key)
    assert report.ok, report
    assert report.unsigned == 0


async def test_full_heads_begin_a_new_file_that_goes_on(
    log_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.heads.MAX_HEADS_BYTES", 1000)
    for _ in range(5):
        await write(log_path, key, 1)
    report = check(log_path, key)
    assert report.ok
    assert report.heads >= 2
    assert heads_path(log_path).with_name("audit.jsonl.heads.old").exists()


async def test_an_agent_that_finds_its_log_cut_says_so_and_records_it(
    log_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await write(log_path, key, 5)
    log_path.write_bytes(b"".join(log_path.read_bytes().splitlines(keepends=True)[:2]))
    with AuditLog.open(log_path, fsync="never") as log:
        assert open_signer(log, "web1", str(key), 60.0) is not None
    assert "cut off" in capsys.readouterr().err
    assert "cut off" in json.loads(log_path.read_text().splitlines()[-1])["reason"]


async def test_a_key_that_was_named_must_be_there_and_the_hosts_own_may_be_missing(
    log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with AuditLog.open(log_path, fsync="never") as log:
        with pytest.raises(AgentUnable, match="can't be read"):
            open_signer(log, "web1", str(tmp_path / "missing"), 60.0)
        monkeypatch.setattr("agent.heads.DEFAULT_KEY", str(tmp_path / "missing"))
        assert open_signer(log, "web1", None, 60.0) is None
    assert "not signed" in capsys.readouterr().err


async def test_a_key_that_cant_sign_is_said_once_and_asks_nobody(
    log_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = host_key(tmp_path)
    ssh_keygen("-q", "-p", "-P", "", "-N", "passphrase", "-f", str(locked))
    with AuditLog.open(log_path, fsync="never") as log:
        signer = HeadSigner(log, "web1", locked, 60.0)
        for number in range(2):
            log.append(line(number))
            await signer.sign()
    assert capsys.readouterr().err.count("isn't signed") == 1
    assert not heads_path(log_path).exists()


# -- where keys are found -------------------------------------------------------------------------------------------


async def test_keys_come_from_known_hosts_by_name(log_path: Path, key: Path, tmp_path: Path) -> None:
    other = host_key(tmp_path, "other")
    known = tmp_path / "known_hosts"
    known.write_text(f"# comment\nweb1,10.0.0.1 {public(key)}\nweb2 {public(other)}\n[web1]:2222 {public(other)}\n")
    await write(log_path, key)
    assert check_heads(log_path, lambda host: find_keys(str(known), host)).ok
    for name in ("web2", "[web1]:2222"):
        wrong = check_heads(log_path, lambda _, name=name: find_keys(str(known), name))  # type: ignore[misc]
        assert wrong.problem is not None
        assert wrong.problem.why == "signature"
    with pytest.raises(UsageError, match="no key of web3"):
        find_keys(str(known), "web3")
    known.write_text(f"web1 {public(key)}\n@revoked web1 {public(key)}\n")
    with pytest.raises(UsageError, match="no key of web1"):
        find_keys(str(known), "web1")
    with pytest.raises(UsageError, match="no file"):
        find_keys(str(tmp_path / "missing"), "web1")


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
async def test_every_kind_of_host_key_signs(log_path: Path, tmp_path: Path, kind: str) -> None:
    key = host_key(tmp_path, "kind", kind)
    await write(log_path, key)
    assert check(log_path, key).ok


# -- the command ----------------------------------------------------------------------------------------------------


async def test_the_command_says_up_to_where_a_log_is_signed(
    log_path: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await write(log_path, key, 4, signed=3)
    words = ["audit", "verify", str(log_path), "--key", f"{key}.pub"]
    assert main(words) == 0
    assert "signed by web1 up to line 2" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["signed"]["seq"], found["signed"]["unsigned_lines"]) == (True, 2, 1)
    other = host_key(tmp_path, "other")
    assert main([*words[:-1], f"{other}.pub"]) == 1
    assert "not signed by a key of web1" in capsys.readouterr().err
    kept = tmp_path / "kept"
    shutil.copy(heads_path(log_path), kept)
    os.unlink(heads_path(log_path))
    assert main(words) == 1
    assert "nothing vouches" in capsys.readouterr().err
    assert main(words[:3]) == 0
    capsys.readouterr()
    shutil.copy(kept, heads_path(log_path))
    log_path.write_bytes(log_path.read_bytes().splitlines(keepends=True)[0])
    for command in (words, words[:3]):
        assert main(command) == 1
        assert "is not whole: missing" in capsys.readouterr().err
