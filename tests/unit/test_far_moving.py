"""What move_file promises, on real files: all that belongs to a file comes along, and nothing is ever replaced."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from opsexec.far import files, moving
from opsexec.far.message import FarError
from tests.parts.far_calls import FarCalls

MEMORY = "/dev/shm"


@pytest.fixture(params=["one file system", "two file systems"])
def places(request, tmp_path):
    """An old and a new directory."""
    old = tmp_path.resolve() / "old"
    old.mkdir()
    if request.param == "one file system":
        new = tmp_path.resolve() / "new"
        new.mkdir()
        yield old, new
        return
    if not os.path.isdir(MEMORY) or os.stat(MEMORY).st_dev == os.stat(old).st_dev:
        pytest.fail(f"{MEMORY} is no other file system")
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield old, Path(made).resolve()


@pytest.fixture
def far(places):
    return FarCalls(*(f"{each}/**" for each in places))


def traits(path) -> tuple[object, ...]:
    info = os.lstat(path)
    body = os.readlink(path) if os.path.islink(path) else Path(path).read_bytes()
    return info.st_mode, info.st_uid, info.st_gid, body


def code_of(call, *args, **named) -> str:
    with pytest.raises(FarError) as caught:
        call(*args, **named)
    return caught.value.code


def test_content_mode_owner_and_times_come_along_and_nothing_stays(places, far):
    old, new = places
    (old / "f").write_bytes(os.urandom(3 << 20))
    os.chmod(old / "f", 0o4751)
    os.utime(old / "f", ns=(1_000_000_001, 2_000_000_002))
    if os.geteuid() == 0:
        os.chown(old / "f", 1234, 4321)
        os.chmod(old / "f", 0o4751)
    before = traits(old / "f")
    assert far.move(old / "f", new / "g") is True
    assert (traits(new / "g"), os.lstat(new / "g").st_mtime_ns) == (before, 2_000_000_002)
    assert (os.listdir(old), os.listdir(new)) == ([], ["g"])
    assert far.move(old / "f", new / "g") is False


def test_a_link_goes_itself_wherever_it_leads(places, far):
    old, new = places
    (old / "l").symlink_to("/etc/shadow")
    before = traits(old / "l")
    assert far.move(old / "l", new / "l")
    assert traits(new / "l") == before
    assert os.listdir(old) == []


def test_what_stands_at_the_new_place_stays(places, far):
    old, new = places
    (old / "f").write_text("mine")
    (new / "file").write_text("theirs")
    (new / "link").symlink_to("nowhere")
    (new / "directory").mkdir()
    for name in ("file", "link", "directory"):
        assert code_of(far.move, old / "f", new / name) == "exists"
    assert ((old / "f").read_text(), (new / "file").read_text()) == ("mine", "theirs")
    assert sorted(os.listdir(new)) == ["directory", "file", "link"]


def test_a_place_that_is_taken_at_the_last_moment_stays_too(places, far, monkeypatch):
    """Made between the look and the rename: the rename itself has to refuse."""
    old, new = places
    (old / "f").write_text("mine")
    monkeypatch.setattr(moving, "_require_free", lambda *_: (new / "f").write_text("theirs"))
    assert code_of(far.move, old / "f", new / "f") == "exists"
    assert ((old / "f").read_text(), (new / "f").read_text()) == ("mine", "theirs")
    assert (os.listdir(old), os.listdir(new)) == (["f"], ["f"])


def test_without_renameat2_it_is_moved_by_a_second_name(places, far, monkeypatch):
    old, new = places
    (old / "f").write_text("mine")
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    assert far.move(old / "f", new / "f")
    assert ((new / "f").read_text(), os.listdir(old)) == ("mine", [])
    (old / "f").write_text("other")
    assert code_of(far.move, old / "f", new / "f") == "exists"


def test_two_names_of_one_file_are_half_a_move_which_goes_on(places, far):
    old, _ = places
    (old / "f").write_text("mine")
    os.link(old / "f", old / "g")
    assert far.move(old / "f", old / "g")
    assert (os.listdir(old), (old / "g").read_text()) == (["g"], "mine")
    assert code_of(far.move, old / "g", old / "." / "g") == "exists"


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_only_files_and_links_are_moved(places, far, kind):
    old, new = places
    os.mkdir(old / "x") if kind == "directory" else os.mkfifo(old / "x")
    assert code_of(far.move, old / "x", new / "x") == ("is_directory" if kind == "directory" else "not_regular")
    assert (os.listdir(old), os.listdir(new)) == (["x"], [])


def test_a_directory_that_takes_the_files_place_is_put_back(places, far, monkeypatch):
    """As if it were swapped between the look and the rename."""
    old, new = places
    (old / "f").write_text("mine")
    (old / "d").mkdir()
    look, swapped = moving._require_free, list[bool]()

    def swap(*args):
        look(*args)
        if not swapped:
            os.rename(old / "f", old / "aside")
            os.rename(old / "d", old / "f")
            swapped.append(True)

    monkeypatch.setattr(moving, "_require_free", swap)
    assert code_of(far.move, old / "f", new / "f") in ("is_directory", "raced")
    assert (sorted(os.listdir(old)), os.listdir(new)) == (["aside", "f"], [])
    assert (old / "f").is_dir()


def test_a_file_that_got_the_number_of_one_that_went_gets_neither_its_owner_nor_its_mode(tmp_path, monkeypatch):
    """Whoever may write the directory puts a program in the place of root's set-id one, and it gets the same inode."""
    if os.geteuid() != 0:
        pytest.skip("an owner is given by root alone")
    theirs = tmp_path.resolve() / "f"
    theirs.write_text("root's")
    theirs.chmod(0o4755)
    looked = os.lstat(theirs)
    opened = files.open_regular

    def swap(place):
        theirs.write_text("theirs"[: looked.st_size])  # as if it were another file of that number, size and time
        os.chown(theirs, 1234, 1234)
        theirs.chmod(0o755)
        os.utime(theirs, ns=(looked.st_atime_ns, looked.st_mtime_ns))
        return opened(place)

    monkeypatch.setattr(moving, "open_regular", swap)
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        new = Path(made).resolve() / "f"
        FarCalls(f"{theirs}", f"{new}").move(theirs, new)
        assert traits(new)[1:] == (1234, 1234, b"theirs")
        assert os.lstat(new).st_mode & 0o7777 == 0o755


def test_neither_place_or_a_missing_directory_is_an_error_and_check_touches_nothing(places, far):
    old, new = places
    assert code_of(far.move, old / "f", new / "f") == "not_found"
    assert code_of(far.move, old / "no/f", new / "f") == "not_found"
    (old / "f").write_text("mine")
    assert code_of(far.move, old / "f", new / "no/f") == "not_found"
    assert far.move(old / "f", new / "f", check=True) is True
    assert (os.listdir(old), os.listdir(new)) == (["f"], [])


def test_moving_takes_the_right_to_read(places, far):
    old, new = places
    (old / "f").write_text("mine")
    assert code_of(far.move, old / "f", new / "f", readers=[f"{new}/**"]) == "denied"
    (old / "way").symlink_to(old)
    assert code_of(far.move, old / "way/f", new / "f", readers=[f"{old}/way/**"]) == "denied"
    assert os.listdir(new) == []
