"""A written file holds all of its content or is as it was; nothing is left beside it."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess

import pytest

from opsexec.far.message import FarError
from opsexec.far.writing import OLD_LIMIT
from tests.conftest import require
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


def test_a_new_file_has_0644_minus_umask(base, far):
    old = os.umask(0o027)
    try:
        assert far.write(base / "f", b"x")[0]
    finally:
        os.umask(old)
    assert far.stat(base / "f")["mode"] == "0640"
    assert os.listdir(base) == ["f"]


def test_a_written_file_keeps_its_mode_and_a_wanted_one_is_set(base, far):
    (base / "f").write_bytes(b"old")
    os.chmod(base / "f", 0o604)
    assert far.write(base / "f", b"new")[0]
    assert (far.read(base / "f"), far.stat(base / "f")["mode"]) == (b"new", "0604")
    changed, _, meta = far.write(base / "f", b"newer", mode="0600")
    assert (changed, meta["changes"]) == (True, {"mode": ["0604", "0600"]})
    assert far.stat(base / "f")["mode"] == "0600"


def test_the_same_content_is_not_written_again(base, far):
    far.write(base / "f", b"x" * 3_000_000, mode="0600")
    before = os.stat(base / "f")
    assert far.write(base / "f", b"x" * 3_000_000, mode="0600")[0] is False
    after = os.stat(base / "f")
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def test_new_content_is_no_set_id_program_because_the_old_was_one(base, far):
    (base / "f").write_bytes(b"old")
    os.chmod(base / "f", 0o6755)
    far.write(base / "f", b"old")
    assert far.stat(base / "f")["mode"] == "6755"
    far.write(base / "f", b"new")
    assert far.stat(base / "f")["mode"] == "0755"
    far.write(base / "f", b"newer", mode="4755")
    assert far.stat(base / "f")["mode"] == "4755"


def test_only_a_mode_that_differs_is_set_without_a_new_file(base, far):
    far.write(base / "f", b"x", mode="0600")
    inode = os.stat(base / "f").st_ino
    assert far.write(base / "f", b"x", mode="0640")[2]["content"] is False
    assert (os.stat(base / "f").st_ino, far.stat(base / "f")["mode"]) == (inode, "0640")


@pytest.mark.parametrize("size", [OLD_LIMIT - 1, OLD_LIMIT, OLD_LIMIT + 1, 3 * OLD_LIMIT])
def test_a_difference_anywhere_is_seen(base, far, size):
    body = bytearray(size)
    far.write(base / "f", bytes(body))
    for at in (0, size // 2, size - 1):
        body[at] ^= 1
        assert far.write(base / "f", bytes(body), check=True)[0]
        body[at] ^= 1
    assert far.write(base / "f", bytes(body[:-1]), check=True)[0]
    assert far.write(base / "f", bytes(body) + b"\0", check=True)[0]
    assert far.write(base / "f", bytes(body), check=True)[0] is False


def test_check_predicts_and_touches_nothing(base, far):
    changed, _, meta = far.write(base / "a/b/f", b"x", parents=True, check=True)
    assert (changed, meta["made"], meta["existed"]) == (True, [f"{base}/a", f"{base}/a/b"], False)
    assert os.listdir(base) == []
    assert code_of(far.write, base / "a/f", b"x", check=True) == "not_found"
    (base / "f").write_bytes(b"old")
    assert far.write(base / "f", b"new", mode="0600", check=True)[0]
    assert (base / "f").read_bytes() == b"old"


def test_the_old_content_is_told_only_to_who_may_read_it(base, far):
    (base / "f").write_bytes(b"old")
    (base / "l").symlink_to("f")
    assert far.write(base / "f", b"new", check=True)[1] == b""
    assert far.write(base / "f", b"new", check=True, readers=[f"{base}/f"])[1] == b"old"
    assert far.write(base / "l", b"new", check=True, readers=[f"{base}/l"])[1] == b""
    (base / "big").write_bytes(bytes(OLD_LIMIT + 1))
    changed, old, meta = far.write(base / "big", b"new", check=True, readers=[f"{base}/**"])
    assert (changed, old, meta["old_known"], meta["old_size"]) == (True, b"", False, OLD_LIMIT + 1)


def test_a_link_at_the_end_stays_and_what_it_leads_to_is_written(base, far):
    (base / "d").mkdir()
    (base / "d/f").write_bytes(b"old")
    (base / "l").symlink_to("d/f")
    (base / "dangling").symlink_to("d/new")
    assert far.write(base / "l", b"new")[2]["path"] == f"{base}/d/f"
    assert far.write(base / "dangling", b"made")[0]
    assert (base / "l").is_symlink()
    assert (base / "d/f").read_bytes() == b"new"
    assert (base / "d/new").read_bytes() == b"made"


def test_a_link_out_of_the_grant_is_neither_followed_nor_replaced(base):
    (base / "in").mkdir()
    (base / "out").write_bytes(b"kept")
    (base / "in/l").symlink_to("../out")
    assert code_of(FarCalls(f"{base}/in/**").write, base / "in/l", b"new") == "denied"
    assert (base / "out").read_bytes() == b"kept"
    assert (base / "in/l").is_symlink()


def test_a_reader_of_the_old_file_keeps_all_of_it(base, far):
    (base / "f").write_bytes(b"old content")
    with (base / "f").open("rb") as reader:
        far.write(base / "f", b"new")
        assert reader.read() == b"old content"


def test_an_access_list_and_user_attributes_survive(base, far):
    setfacl = shutil.which("setfacl")
    (base / "f").write_bytes(b"old")
    try:
        os.setxattr(base / "f", "user.note", b"kept")
    except OSError:
        pytest.skip("this file system has no user attributes")
    if setfacl:
        subprocess.run([setfacl, "-m", "u:daemon:rw", str(base / "f")], check=True)
    before = {name: os.getxattr(base / "f", name) for name in os.listxattr(base / "f")}
    far.write(base / "f", b"new")
    assert {name: os.getxattr(base / "f", name) for name in os.listxattr(base / "f")} == before


def test_an_owner_is_kept_and_a_wanted_one_given(base, far):
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    (base / "f").write_bytes(b"old")
    os.chown(base / "f", 1, 1)
    far.write(base / "f", b"new")
    assert (os.stat(base / "f").st_uid, os.stat(base / "f").st_gid) == (1, 1)
    far.write(base / "g", b"new", mode="0640", owner="daemon", group="daemon")
    assert (far.stat(base / "g")["owner"], far.stat(base / "g")["mode"]) == ("daemon", "0640")


def test_who_held_a_file_open_or_by_another_name_has_nothing_of_the_one_its_new_owner_gets(base, far):
    """Also where the content is what was asked for already: else they would write a set-id program of root's."""
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    (base / "f").write_bytes(b"asked for")
    os.chown(base / "f", 1, 1)
    os.link(base / "f", base / "kept")
    with (base / "f").open("r+b") as held, mmap.mmap(held.fileno(), 0) as mapped:
        assert far.write(base / "f", b"asked for", mode="4755", owner="root", group="root")[0] is True
        mapped[:5] = b"other"
        mapped.flush()
    assert (base / "f").read_bytes() == b"asked for"
    assert (os.stat(base / "f").st_uid, os.stat(base / "f").st_mode & 0o7777) == (0, 0o4755)
    assert (os.stat(base / "kept").st_uid, os.stat(base / "kept").st_mode & 0o7000) == (1, 0)


@pytest.mark.parametrize("content", [b"new", b"old"])
def test_whom_the_old_owner_let_in_is_not_let_in_by_the_new_one(base, far, content):
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    (base / "f").write_bytes(b"old")
    os.chown(base / "f", 1, 1)
    own, user, group, mask, others, nobody = 1, 2, 4, 16, 32, 0xFFFFFFFF  # linux/posix_acl.h
    entries = ((own, 6, nobody), (user, 6, 1234), (group, 4, nobody), (mask, 6, nobody), (others, 4, nobody))
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(base / "f", "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("this file system has no access lists")
    far.write(base / "f", content, mode="0640", owner="root", group="root")
    assert "system.posix_acl_access" not in os.listxattr(base / "f")


@pytest.fixture
def small_disk(base):
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mount = require("mount", "no mount program")
    (base / "disk").mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(base / "disk")], check=False)
    require(done.returncode == 0, "no tmpfs can be mounted here")
    yield base / "disk"
    subprocess.run(["umount", str(base / "disk")], check=True)


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(small_disk, far):
    far.write(small_disk / "f", b"old content", mode="0600")
    assert code_of(far.write, small_disk / "f", bytes(1 << 20)) == "no_space"
    assert far.read(small_disk / "f") == b"old content"
    assert os.listdir(small_disk) == ["f"]


def test_a_read_only_disk_says_so(small_disk, far):
    far.write(small_disk / "f", b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert code_of(far.write, small_disk / "f", b"new") == "read_only"
    assert code_of(far.remove, small_disk / "f") == "read_only"


def test_a_rename_that_fails_leaves_nothing_beside_the_file(base, far, monkeypatch):
    (base / "f").write_bytes(b"old")

    def fake_rename(*_args, **_named):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", fake_rename)
    assert code_of(far.write, base / "f", b"new") == "io"
    assert os.listdir(base) == ["f"]
    assert (base / "f").read_bytes() == b"old"
