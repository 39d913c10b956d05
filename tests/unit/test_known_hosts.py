"""When a new host's key is trusted, and what accept-new writes of it: all of it, or the key isn't trusted."""

from __future__ import annotations

import base64
import fcntl
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest

from opsexec.hosts.known_hosts import TRIES, HostKeyCheck

BEFORE = "# my hosts\n"


@contextmanager
def no_file_longer_than(length: int) -> Iterator[None]:
    """As on a full disk: what is longer is written as far as there is room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_key_that_there_is_no_room_to_remember_is_not_trusted_and_leaves_no_torn_line(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(BEFORE)
    key = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
    check = HostKeyCheck([str(known)], "accept-new")
    check.lookup("web1", "127.0.0.1", 22)
    with no_file_longer_than(len(BEFORE) + 40):
        assert not check.validate_host_public_key("web1", "127.0.0.1", 22, key)
    assert "No space left on device" in check.rejection("web1").message
    assert known.read_text() == BEFORE
    later = HostKeyCheck([str(known)], "accept-new")
    later.lookup("web1", "127.0.0.1", 22)
    assert later.validate_host_public_key("web1", "127.0.0.1", 22, key)
    assert known.read_text() == BEFORE + f"web1 {key.export_public_key('openssh').decode().strip()}\n"


def a_key(kind: str = "ssh-ed25519") -> asyncssh.SSHKey:
    return asyncssh.generate_private_key(kind).convert_to_public()


def text_of(key: asyncssh.SSHKey) -> str:
    return key.export_public_key("openssh").decode().strip()


def asked(check: HostKeyCheck, key: asyncssh.SSHKey, host: str = "web1", port: int = 22) -> bool:
    """Whether a key is trusted that a host offered and no file vouches for."""
    check.lookup(host, "127.0.0.1", port)
    return check.validate_host_public_key(host, "127.0.0.1", port, key)


def test_strict_takes_no_key_that_nobody_vouches_for(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    key = a_key()
    check = HostKeyCheck([str(known)], "strict")
    assert not asked(check, key)
    assert not known.exists()
    assert f"known none, offered {key.get_fingerprint()}" in check.rejection("web1").message


def test_accept_new_takes_the_first_key_and_no_other(tmp_path: Path) -> None:
    known = tmp_path / "above" / "made" / "known_hosts"
    first, second = a_key(), a_key()
    check = HostKeyCheck([str(known)], "accept-new")
    assert asked(check, first)
    assert check.refused is None
    assert known.read_text() == f"web1 {text_of(first)}\n"
    assert known.stat().st_mode & 0o777 == 0o600
    assert known.parent.stat().st_mode & 0o777 == 0o700
    changed = HostKeyCheck([str(known)], "accept-new")
    assert not asked(changed, second)
    assert known.read_text() == f"web1 {text_of(first)}\n"
    error = changed.rejection("web1")
    assert (error.expected, error.got) == (first.get_fingerprint(), second.get_fingerprint())
    assert "the host key changed" in error.message


def test_a_key_is_kept_under_the_port_that_is_not_the_usual_one_and_under_an_alias(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    key = a_key()
    for check, port in (
        (HostKeyCheck([str(known)], "accept-new"), 0),
        (HostKeyCheck([str(known)], "accept-new"), 2222),
        (HostKeyCheck([str(known)], "accept-new", alias="db"), 2222),
    ):
        assert check.validate_host_public_key("web1", "127.0.0.1", port, key)
        known.write_text(known.read_text() + "#\n")
        check.known = []
    names = [line.split()[0] for line in known.read_text().splitlines() if line != "#"]
    assert names == ["web1", "[web1]:2222", "db"]


def test_a_key_that_another_login_learnt_meanwhile_is_the_hosts(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    first, second = a_key(), a_key()
    same, other = HostKeyCheck([str(known)], "accept-new"), HostKeyCheck([str(known)], "accept-new")
    for check in (same, other):
        check.lookup("web1", "127.0.0.1", 22)
    known.write_text(f"web1 {text_of(first)}\n")
    assert same.validate_host_public_key("web1", "127.0.0.1", 22, first)
    assert not other.validate_host_public_key("web1", "127.0.0.1", 22, second)
    assert known.read_text() == f"web1 {text_of(first)}\n"
    assert (same.refused, other.refused) == (None, second)


def test_a_key_that_was_revoked_meanwhile_is_not_learnt(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    key = a_key()
    check = HostKeyCheck([str(known)], "accept-new")
    check.lookup("web1", "127.0.0.1", 22)
    known.write_text(f"@revoked * {text_of(key)}\nweb1 {text_of(key)}\n")
    before = known.read_text()
    assert not check.validate_host_public_key("web1", "127.0.0.1", 22, key)
    assert known.read_text() == before
    assert key.get_fingerprint() in check.rejection("web1", "Host key is revoked").message


def test_a_key_that_was_revoked_meanwhile_is_not_learnt_where_nobody_knows_it_either(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    key = a_key()
    check = HostKeyCheck([str(known)], "accept-new")
    check.lookup("web1", "127.0.0.1", 22)
    known.write_text(f"@revoked * {text_of(key)}\n")
    before = known.read_text()
    assert not check.validate_host_public_key("web1", "127.0.0.1", 22, key)
    assert known.read_text() == before


@pytest.mark.parametrize("what", ["size", "time"])
def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path, what: str) -> None:
    """Of another size at the same time, and of the same size at another."""
    known = tmp_path / "known_hosts"
    first, second = a_key(), a_key()
    known.write_text(f"web1 {text_of(first)}\n")
    os.utime(known, ns=(10**18, 10**18))
    assert list(HostKeyCheck([str(known)], "strict").lookup("web1", "127.0.0.1", 22)[0]) == [first]
    comment, at = ("#\n", 10**18) if what == "size" else ("", 10**18 + 1)
    known.write_text(f"web1 {text_of(second)}\n{comment}")
    os.utime(known, ns=(at, at))
    assert list(HostKeyCheck([str(known)], "strict").lookup("web1", "127.0.0.1", 22)[0]) == [second]


def test_a_key_is_learnt_by_the_first_file_of_several(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    key = a_key()
    assert asked(HostKeyCheck([str(first), str(second)], "accept-new"), key)
    assert first.read_text() == f"web1 {text_of(key)}\n"
    assert not second.exists()


def test_where_there_is_no_home_no_directory_of_that_name_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "~")
    monkeypatch.chdir(tmp_path)
    check = HostKeyCheck(["~/.ssh/known_hosts"], "accept-new")
    assert not asked(check, a_key())
    assert "can't be remembered (~/.ssh/known_hosts: there is no home directory)" in check.rejection("web1").message
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_an_authority_vouches_for_learns_no_bare_key(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"@cert-authority web1 {text_of(a_key())}\n")
    assert not asked(HostKeyCheck([str(known)], "accept-new"), a_key())


def test_a_file_that_can_not_be_read_lets_no_key_be_learnt(tmp_path: Path) -> None:
    """It may be the one that says another key, or that this one was revoked."""
    known, other = tmp_path / "known_hosts", tmp_path / "a-directory"
    other.mkdir()
    check = HostKeyCheck([str(known), str(other)], "accept-new")
    assert not asked(check, a_key())
    assert not known.exists()
    assert f"can't be read ({other}" in check.rejection("web1").message


def test_a_broken_line_with_a_marker_casts_doubt_on_all_and_one_without_is_passed_over(tmp_path: Path) -> None:
    key = a_key()
    good, broken = tmp_path / "good", tmp_path / "broken"
    good.write_text(f"broken\nweb1 {text_of(key)}\n")
    check = HostKeyCheck([str(good), str(tmp_path / "none"), str(broken)], "accept-new")
    assert list(check.lookup("web1", "127.0.0.1", 22)[0]) == [key]
    broken.write_text("  @revoked *\n")
    assert [list(part) for part in check.lookup("web1", "127.0.0.1", 22)] == [[]] * 7
    assert not asked(check, a_key())
    assert "can't be read" in check.rejection("web1").message


@pytest.mark.parametrize(
    "data",
    [
        "ssh-ed25519",
        "{ed25519}",
        "ssh-ed25519 nonsense",
        "ssh-ed25519 AAAA",
        "ssh-rsa {ed25519}",
        "ssh-ed25519 {cut}",
        "ssh-ed25519 !{ed25519}",
    ],
)
def test_a_line_that_revokes_what_is_no_key_casts_doubt_on_all(tmp_path: Path, data: str) -> None:
    key = a_key()
    blob = text_of(key).split()[1]
    good, broken = tmp_path / "good", tmp_path / "broken"
    good.write_text(f"web1 {text_of(key)}\n")
    broken.write_text(f"@revoked * {data.format(ed25519=blob, cut=blob[:-3])}\n")
    check = HostKeyCheck([str(good), str(broken)], "strict")
    assert [list(part) for part in check.lookup("web1", "127.0.0.1", 22)] == [[]] * 7
    assert not asked(check, key)
    assert "can't be read" in check.rejection("web1").message


def test_a_revoked_key_of_a_kind_that_nobody_here_has_is_passed_over(tmp_path: Path) -> None:
    key, known = a_key(), tmp_path / "known_hosts"
    blob = base64.b64encode(b"\0\0\0\x07ssh-new" + b"\0\0\0\x01x").decode()
    certificate = "@revoked * x509v3-ssh-rsa CN=a,O=b a comment"
    known.write_text(f"@revoked * ssh-new {blob} a comment\n{certificate}\nweb1 {text_of(key)} a comment of words\n")
    check = HostKeyCheck([str(known)], "strict")
    assert list(check.lookup("web1", "127.0.0.1", 22)[0]) == [key]


def test_a_refusal_says_what_is_known_and_which_file_says_it(tmp_path: Path) -> None:
    key, known = a_key(), tmp_path / "known_hosts"
    known.write_text(f"web1 {text_of(key)}\n")
    check = HostKeyCheck([os.devnull, str(known)], "strict")
    check.lookup("web1", "127.0.0.1", 22)
    changed = check.rejection("web1")
    assert f"known {key.get_fingerprint()}, offered a key of another kind" in changed.message
    assert changed.got is None
    assert f"remove its line from {known}" in (changed.hint or "")
    revoked = check.rejection("web1", "Host key is revoked")
    assert "the host key is revoked: its certificate" in revoked.message
    assert revoked.got is None


def test_what_forgets_or_is_no_file_learns_no_key(tmp_path: Path) -> None:
    for files, why in (([], "no file is named"), (["/dev/null"], "it is no regular file, and forgets")):
        check = HostKeyCheck(files, "accept-new")
        assert not asked(check, a_key())
        assert why in check.rejection("web1").message


def test_a_file_that_somebody_keeps_locked_learns_no_key(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    with known.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        check = HostKeyCheck([str(known)], "accept-new")
        assert not asked(check, a_key())
    assert known.read_text() == ""
    assert "can't be remembered" in check.rejection("web1").message


def test_many_hosts_whose_keys_a_locked_file_should_learn_hold_everybody_up_for_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    known = tmp_path / "known_hosts"
    with known.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for number in range(20):
            check = HostKeyCheck([str(known)], "accept-new")
            assert not asked(check, a_key(), f"web{number}")
            assert f"fuser {known}" in check.rejection("web").message
    assert len(naps) < 2 * TRIES
    assert asked(HostKeyCheck([str(known)], "accept-new"), a_key())


def test_a_last_line_without_an_end_is_ended_first(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("# no end")
    key = a_key()
    assert asked(HostKeyCheck([str(known)], "accept-new"), key)
    assert known.read_text() == f"# no end\nweb1 {text_of(key)}\n"
