"""How much a tree holds: what is over its bound is seen, wherever it is put."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsexec.far.sandbox_room import Room

MIB = 1 << 20
INODES = 1 << 20


@pytest.fixture(autouse=True)
def _a_disk_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is in use is what lies below tmp_path: on the machine's own disk others make room meanwhile, and use it."""

    def used(_room: Room) -> tuple[int, int, int]:
        found = [os.lstat(os.path.join(top, name)) for top, below, files in os.walk(tmp_path) for name in below + files]
        return sum(each.st_blocks * 512 for each in found), len(found), INODES

    monkeypatch.setattr(Room, "_used", used)


def fill(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def test_es7_a_tree_over_its_bytes_is_told_and_one_below_isn_t(tmp_path: Path) -> None:
    room = Room(str(tmp_path), 8 * MIB, 0)
    fill(tmp_path / "a", 4 * MIB)
    assert room.over() is None
    fill(tmp_path / "deep/er/b", 5 * MIB)
    assert room.over() == f"its files are over {8 * MIB} bytes"


def test_es8_a_tree_with_too_many_files_is_told(tmp_path: Path) -> None:
    room = Room(str(tmp_path), 0, 50)
    for number in range(60):
        (tmp_path / str(number)).mkdir()
    assert room.over() == "it has more than 50 files"


def test_what_was_there_before_counts_too(tmp_path: Path) -> None:
    fill(tmp_path / "old", 6 * MIB)
    room = Room(str(tmp_path), 8 * MIB, 0)
    assert room.over() is None
    fill(tmp_path / "new", 3 * MIB)
    assert room.over() is not None


def test_a_file_by_two_names_counts_once_and_a_hole_doesn_t(tmp_path: Path) -> None:
    room = Room(str(tmp_path), 8 * MIB, 0)
    fill(tmp_path / "a", 5 * MIB)
    os.link(tmp_path / "a", tmp_path / "b")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    assert room.over() is None
    total, files, unseen = room._count()
    assert (abs(total - 5 * MIB) < MIB, files, unseen) == (True, 3, "")


def test_another_s_files_on_the_same_disk_end_nobody(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    room = Room(str(mine), 4 * MIB, 0)
    fill(tmp_path / "theirs", 9 * MIB)
    assert room.over() is None
    room._next_walk = 0
    fill(mine / "a", 5 * MIB)
    assert room.over() is not None


def test_a_link_out_of_the_tree_isn_t_followed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    fill(tmp_path / "elsewhere" / "big", 9 * MIB)
    (home / "link").symlink_to(tmp_path / "elsewhere")
    room = Room(str(home), 4 * MIB, 0)
    assert room._count()[0] < MIB


def test_a_part_that_hides_itself_is_named_once_the_disk_fills(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    room = Room(str(home), 4 * MIB, 0)
    here = os.open(home, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=here)
        next_ = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = next_
    handle = os.open("big", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(handle, b"x" * (6 * MIB))
    os.fsync(handle)
    os.close(handle)
    os.close(here)
    told = room.over()
    assert told is not None
    assert "can't be looked into" in told
