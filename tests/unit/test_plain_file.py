"""Anything may stand at a name: what is no plain file is told, not waited for, and leaves no descriptor."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from opsexec.plain_file import NotPlain, read_plain


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_and_what_is_known_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    data, info = read_plain(path, 5)
    assert (data, info.st_size, info.st_uid) == (b"12345", 5, os.geteuid())


def test_one_byte_more_than_wanted_tells_that_there_is_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert len(read_plain(path, 100)[0]) == 101


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_plain_file_is_told_at_once(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "x")
    before = descriptors()
    with pytest.raises(NotPlain, match="not a regular file"):
        read_plain(tmp_path / "x", 100)
    assert descriptors() == before


def test_a_device_is_no_plain_file() -> None:
    with pytest.raises(NotPlain):
        read_plain(Path("/dev/zero"), 100)


def test_what_cant_be_opened_is_an_error_of_the_system_s(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        for name in ("link", "socket", "nowhere"):
            with pytest.raises(OSError):  # noqa: PT011  # three different ones
                read_plain(tmp_path / name, 100)
