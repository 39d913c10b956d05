"""What the file operations promise, on real files."""

from __future__ import annotations

import hashlib
import os
import socket

import pytest

from opsexec.far.message import FarError
from tests.parts.far_calls import FarCalls


@pytest.fixture
def base(tmp_path):
    return tmp_path.resolve()


@pytest.fixture
def far(base):
    return FarCalls(f"{base}/**")


def code_of(call, *args, **named) -> str:
    with pytest.raises(FarError) as caught:
        call(*args, **named)
    return caught.value.code


def test_a_read_gives_the_bytes_from_an_offset(base, far):
    (base / "f").write_bytes(bytes(range(256)))
    assert far.read(base / "f") == bytes(range(256))
    assert far.read(base / "f", offset=250) == bytes(range(250, 256))
    assert far.read(base / "f", offset=1000) == b""


def test_a_file_longer_than_the_limit_is_an_error_and_one_just_as_long_is_not(base, far):
    (base / "f").write_bytes(b"12345")
    assert far.read(base / "f", limit=5) == b"12345"
    assert code_of(far.read, base / "f", limit=4) == "too_large"
    assert far.read(base / "f", offset=1, limit=4) == b"2345"


def test_files_whose_size_lies_are_read_to_their_end():
    far = FarCalls("/proc/**", "/sys/**")
    assert b"MemTotal" in far.read("/proc/meminfo")
    assert b"Name:" in far.read(f"/proc/{os.getpid()}/status")
    assert code_of(far.read, "/proc/meminfo", limit=10) == "too_large"


def test_what_is_no_file_is_refused_without_waiting_for_it(base, far):
    os.mkfifo(base / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(base / "socket"))
        for name in ("fifo", "socket"):
            assert code_of(far.read, base / name) == "not_regular"
            assert code_of(far.write, base / name, b"x") == "not_regular"
            assert far.stat(base / name)["kind"] == name
    assert code_of(FarCalls("/dev/**").read, "/dev/zero") == "not_regular"
    assert code_of(far.read, base) == "is_directory"
    assert code_of(far.write, base, b"x") == "is_directory"


def test_stat_says_what_stands_at_a_path(base, far):
    (base / "f").write_bytes(b"abc")
    os.chmod(base / "f", 0o640)
    os.utime(base / "f", (1, 12.5))
    found = far.stat(base / "f")
    assert found["exists"] is True
    assert (found["kind"], found["size"], found["mode"], found["mtime"]) == ("file", 3, "0640", 12.5)
    assert (found["uid"], found["gid"], found["target"]) == (os.geteuid(), os.getegid(), None)
    assert found["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert "sha256" not in far.stat(base / "f", digest=False)


def test_stat_of_a_link_is_the_link_itself_even_when_it_leads_outside(base, far):
    (base / "l").symlink_to("/etc/shadow")
    found = far.stat(base / "l")
    assert (found["kind"], found["target"], found["sha256"]) == ("link", "/etc/shadow", None)


def test_a_missing_path_is_an_answer(base, far):
    (base / "f").write_bytes(b"")
    for name in ("none", "none/below", "f/below"):
        assert far.stat(base / name) == {"exists": False}


def test_an_owner_without_a_name_is_told_by_number(base, far):
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    (base / "f").write_bytes(b"")
    os.chown(base / "f", 54321, 54322)
    assert (far.stat(base / "f")["owner"], far.stat(base / "f")["group"]) == ("54321", "54322")


def test_a_directory_is_made_once_with_its_parents(base, far):
    changed, meta = far.make_dir(base / "a/b/c", mode="0750")
    assert changed
    assert meta["made"] == [f"{base}/a", f"{base}/a/b", f"{base}/a/b/c"]
    assert [far.stat(base / p)["mode"] for p in ("a", "a/b", "a/b/c")] == ["0755", "0755", "0750"]
    assert far.make_dir(base / "a/b/c", mode="0750") == (False, {**meta, "made": []})
    assert far.make_dir(base / "a/b/c", mode="0700")[1]["changes"] == {"mode": ["0750", "0700"]}
    assert far.make_dir(base / "a/b/c")[0] is False


def test_a_directory_without_its_parent_is_an_error_unless_parents_are_wanted(base, far):
    assert code_of(far.make_dir, base / "a/b", parents=False) == "not_found"
    assert code_of(far.make_dir, base / "a/b", parents=False, check=True) == "not_found"


def test_parents_are_made_only_where_they_are_granted(base):
    far = FarCalls(f"{base}/a/b/**")
    assert code_of(far.make_dir, base / "a/b/c") == "denied"
    assert code_of(far.write, base / "a/b/c", b"x", parents=True) == "denied"
    assert code_of(far.write, base / "a/b/c", b"x", parents=True, check=True) == "denied"
    assert not (base / "a").exists()


def test_a_directory_where_a_file_stands_is_an_error(base, far):
    (base / "f").write_bytes(b"")
    assert code_of(far.make_dir, base / "f") == "exists"
    assert code_of(far.make_dir, base / "f/below") == "not_directory"


def test_a_link_is_made_once_and_replaced_by_another(base, far):
    assert far.link(base / "l", "target")
    assert not far.link(base / "l", "target")
    assert far.link(base / "l", "/etc/shadow", check=True)
    assert os.readlink(base / "l") == "target"
    assert far.link(base / "l", "/etc/shadow")
    assert os.readlink(base / "l") == "/etc/shadow"
    assert os.listdir(base) == ["l"]


def test_a_link_never_replaces_a_file_or_a_directory(base, far):
    (base / "f").write_bytes(b"kept")
    (base / "d").mkdir()
    assert code_of(far.link, base / "f", "x") == "exists"
    assert code_of(far.link, base / "d", "x", check=True) == "exists"
    assert (base / "f").read_bytes() == b"kept"


def test_a_mode_is_set_where_it_differs(base, far):
    (base / "f").write_bytes(b"")
    os.chmod(base / "f", 0o600)
    assert far.set_mode(base / "f", "0644", check=True) == (True, {"mode": ["0600", "0644"]})
    assert far.stat(base / "f")["mode"] == "0600"
    assert far.set_mode(base / "f", "0644") == (True, {"mode": ["0600", "0644"]})
    assert far.set_mode(base / "f", "0644") == (False, {})
    assert far.stat(base / "f")["mode"] == "0644"


def test_a_file_nobody_may_open_can_have_its_mode_set(base, far):
    (base / "f").write_bytes(b"")
    os.chmod(base / "f", 0)
    os.mkfifo(base / "fifo", 0o600)
    assert far.set_mode(base / "f", "0400")[0]
    assert far.set_mode(base / "fifo", "0622")[0]
    assert far.stat(base / "fifo")["mode"] == "0622"


def test_setting_a_mode_never_goes_through_a_link(base, far):
    (base / "f").write_bytes(b"")
    os.chmod(base / "f", 0o600)
    (base / "l").symlink_to("f")
    assert code_of(far.set_mode, base / "l", "0777") == "is_link"
    assert far.stat(base / "f")["mode"] == "0600"


def test_an_owner_and_a_set_id_mode_are_set_together(base, far):
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    (base / "f").write_bytes(b"")
    (base / "l").symlink_to("f")
    assert far.set_mode(base / "f", "4755", "daemon", "daemon")[0]
    found = far.stat(base / "f")
    assert (found["mode"], found["owner"], found["group"]) == ("4755", "daemon", "daemon")
    assert far.set_mode(base / "l", owner="daemon")[0]
    assert far.stat(base / "l")["owner"] == "daemon"
    assert far.set_mode(base / "f", owner="1", group="1") == (False, {})


def test_a_user_the_host_does_not_have_is_an_error_before_anything_changes(base, far):
    (base / "f").write_bytes(b"old")
    assert code_of(far.set_mode, base / "f", "0777", "nobody-of-that-name") == "no_such_user"
    assert code_of(far.write, base / "f", b"new", group="nobody-of-that-name") == "no_such_user"
    assert (base / "f").read_bytes() == b"old"


@pytest.mark.parametrize("number", ["4294967295", "99999999999999", "9" * 5000])
def test_a_number_that_no_user_can_have_is_an_error_before_anything_changes(base, far, number) -> None:
    (base / "f").write_bytes(b"old")
    assert code_of(far.set_mode, base / "f", "0777", number) == "no_such_user"
    assert code_of(far.write, base / "f", b"new", group=number) == "no_such_user"
    assert (base / "f").read_bytes() == b"old"


def test_a_missing_path_has_no_mode_to_set(base, far):
    assert code_of(far.set_mode, base / "none", "0644") == "not_found"


@pytest.mark.parametrize("arguments", [[], [b"/x"], [b"/x", b"junk", b"0", b"1"], [b"/x", b"\0\0\0\1", b"0"]])
def test_a_malformed_request_is_an_error_not_a_crash(far, arguments):
    for name in ("read_file", "stat", "write_file", "remove", "make_dir", "link", "set_mode", "move_file"):
        with pytest.raises(FarError) as caught:
            far.operations[name](arguments)
        assert caught.value.code in ("bad_request", "denied")
