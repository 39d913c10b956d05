"""Someone who may write inside a grant swaps links and directories, and still nothing outside changes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from opsexec.far.copy_pipe import Pipe
from opsexec.far.exclude import Excludes
from opsexec.far.message import FarError
from opsexec.far.owners import Owners
from opsexec.far.tree_dirs import Directories
from opsexec.far.tree_entry import DIRECTORY, FILE, Entry
from opsexec.far.tree_plan import Action, TreePlan
from opsexec.far.tree_put import TreePut
from tests.parts.far_calls import FarCalls
from tests.parts.swapper import Swapper

ROUNDS = 3000
EXPECTED = {"done", "denied", "raced", "not_found", "not_directory", "exists", "is_link"}


@pytest.fixture
def base(tmp_path):
    real = tmp_path.resolve()
    (real / "out/sub").mkdir(parents=True)
    (real / "out/file").write_bytes(b"secret")
    (real / "out/sub/file").write_bytes(b"secret")
    os.chmod(real / "out/file", 0o600)
    (real / "in/real/sub").mkdir(parents=True)
    (real / "in/real/file").write_bytes(b"open")
    return real


def snapshot(base):
    found = {}
    for root, dirs, files in os.walk(base / "out"):
        for name in dirs + files:
            path = f"{root}/{name}"
            info = os.lstat(path)
            body = Path(path).read_bytes() if name in files else b""
            found[path] = (info.st_mode, info.st_uid, info.st_ino, body)
    return found


def swap_directory(base):
    """`in/d` is now a directory, now a link out of the grant."""
    os.rename(base / "in/real", base / "in/d")
    os.symlink(base / "out", base / "in/link")
    return Swapper("exchange", base / "in/d", base / "in/link")


def swap_last_name(base):
    """`in/d/file` is now a file, now a link out of the grant."""
    os.rename(base / "in/real", base / "in/d")
    return Swapper("replace", base / "in/d/file", base / "out/file")


@pytest.mark.parametrize("swapping", [swap_directory, swap_last_name])
@pytest.mark.timeout(180)
def test_no_operation_ever_reaches_outside_its_grant(base, swapping):
    far = FarCalls(f"{base}/in/**")
    before = snapshot(base)
    seen: dict[str, int] = {}
    read: set[bytes] = set()
    target = base / "in/d/file"
    operations = [
        lambda n: read.add(far.read(target)),
        lambda n: far.write(target, b"w%d" % n),
        lambda n: far.write(base / f"in/d/new{n % 7}", b"w", parents=True),
        lambda n: far.set_mode(target, "0777"),
        lambda n: far.stat(target),
        lambda n: far.make_dir(base / f"in/d/made{n % 7}", mode="0777"),
        lambda n: far.link(base / f"in/d/linked{n % 7}", f"t{n}"),
        lambda n: far.remove(base / f"in/d/new{n % 7}"),
        lambda n: far.remove(base / "in/d/sub", recursive=True),
        lambda n: far.move(target, base / f"in/moved{n}"),
        lambda n: (far.write(base / "in/own", b"w"), far.move(base / "in/own", base / f"in/d/put{n}")),
        lambda n: far.remove(target),
    ]
    with swapping(base) as swapper:
        for number in range(ROUNDS):
            try:
                operations[number % len(operations)](number)
                outcome = "done"
            except FarError as error:
                outcome = error.code
            seen[outcome] = seen.get(outcome, 0) + 1
    assert set(seen) <= EXPECTED
    assert snapshot(base) == before
    assert b"secret" not in read
    assert swapper.count > ROUNDS
    assert seen.get("done", 0) > ROUNDS / 20, seen
    assert seen.get("denied", 0) > ROUNDS / 100, seen


@pytest.mark.timeout(120)
def test_a_reader_sees_the_old_or_the_new_content_and_never_a_part(base):
    far = FarCalls(f"{base}/in/**")
    bodies = [b"a" * 200_000, b"b" * 200_000]
    far.write(base / "in/f", bodies[0])
    writing = threading.Thread(target=lambda: [far.write(base / "in/f", bodies[n % 2]) for n in range(300)])
    writing.start()
    seen = set()
    while writing.is_alive():
        seen.add((base / "in/f").read_bytes())
    writing.join()
    assert seen == set(bodies)
    assert not [name for name in os.listdir(base / "in") if name.startswith(".opsexec")]


@pytest.fixture
def before_open(monkeypatch):
    """Do something right before a name is opened: the worst moment for a swap."""

    def arrange(name: bytes, flag: int, swap) -> None:
        real_open = os.open

        def fake_open(path, flags, mode=0o777, *, dir_fd=None):
            if path == name and flags & flag == flag and dir_fd is not None:
                monkeypatch.setattr(os, "open", real_open)
                swap()
            return real_open(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", fake_open)

    return arrange


def test_a_file_that_becomes_a_link_as_it_is_opened_is_not_read_through_it(base, before_open):
    far = FarCalls(f"{base}/in/**")

    def swap() -> None:
        os.rename(base / "in/real/file", base / "in/moved")
        os.symlink(base / "out/file", base / "in/real/file")

    before_open(b"file", os.O_NONBLOCK, swap)
    with pytest.raises(FarError) as caught:
        far.read(base / "in/real/file")
    assert caught.value.code == "denied"


def test_a_directory_that_becomes_a_link_as_its_tree_goes_keeps_the_other_tree(base, before_open):
    far = FarCalls(f"{base}/in/**")
    before = snapshot(base)

    def swap() -> None:
        os.rename(base / "in/real/sub", base / "in/moved")
        os.symlink(base / "out", base / "in/real/sub")

    before_open(b"sub", os.O_DIRECTORY, swap)
    far.remove(base / "in/real", recursive=True)
    assert snapshot(base) == before
    assert not (base / "in/real").exists()
    assert (base / "in/moved").is_dir()


def test_a_parent_that_becomes_a_link_as_it_is_entered_is_walked_again(base, before_open):
    far = FarCalls(f"{base}/in/**")

    def swap() -> None:
        os.rename(base / "in/real", base / "in/moved")
        os.symlink("moved", base / "in/real")

    before_open(b"real", os.O_DIRECTORY, swap)
    assert far.write(base / "in/real/new", b"x")[2]["path"] == f"{base}/in/moved/new"


@pytest.fixture
def before_chmod(monkeypatch):
    """Do something right before the owner or the mode under a name is set: the worst moment for a swap."""

    def arrange(name: bytes, swap) -> None:
        real_open, real_chown = os.open, os.chown

        def swap_once() -> None:
            monkeypatch.setattr(os, "open", real_open)
            monkeypatch.setattr(os, "chown", real_chown)
            swap()

        def fake_open(path, flags, mode=0o777, *, dir_fd=None):
            if path == name and flags & os.O_PATH and not flags & os.O_DIRECTORY:
                swap_once()
            return real_open(path, flags, mode, dir_fd=dir_fd)

        def fake_chown(path, *args, **named):
            if path == name:
                swap_once()
            return real_chown(path, *args, **named)

        monkeypatch.setattr(os, "open", fake_open)
        monkeypatch.setattr(os, "chown", fake_chown)

    return arrange


def put_program(base) -> None:
    """What whoever may write a directory does to get a set-id program: its own in the place of a new directory."""
    (base / "in/d").rmdir()
    (base / "in/d").write_bytes(b"#!/bin/sh\n")


def test_a_new_directory_that_becomes_a_program_gets_no_set_id_mode(base, before_chmod):
    far = FarCalls(f"{base}/in/**")
    before_chmod(b"d", lambda: put_program(base))
    with pytest.raises(FarError) as caught:
        far.make_dir(base / "in/d", mode="2775")
    assert caught.value.code in ("raced", "exists")  # it is tried again, and then a program stands there
    assert os.lstat(base / "in/d").st_mode & 0o7000 == 0


def test_a_new_directory_that_is_a_program_when_it_is_looked_at_gets_no_set_id_mode(base, monkeypatch):
    far = FarCalls(f"{base}/in/**")
    real_mkdir = os.mkdir

    def mkdir_and_swap(*args, **named):
        real_mkdir(*args, **named)
        put_program(base)

    monkeypatch.setattr(os, "mkdir", mkdir_and_swap)
    with pytest.raises(FarError) as caught:
        far.make_dir(base / "in/d", mode="2775")
    assert caught.value.code in ("raced", "exists")  # it is tried again, and then a program stands there
    assert os.lstat(base / "in/d").st_mode & 0o7000 == 0


def put_of(base, entry):
    """A push of one entry into `in`."""
    directories = Directories(os.open(base / "in", os.O_RDONLY))
    plan = TreePlan(
        *([entry], directories, Owners(), Excludes([])),
        delete=False,
        pushing=True,
        distrust=False,
        admit=None,
        alive=lambda: None,
    )
    return directories, TreePut(plan, directories, -1, b"")


def test_a_copied_directory_that_becomes_a_program_gets_no_set_id_mode(base, before_chmod):
    (base / "in/d").mkdir()
    info = os.lstat(base / "in/d")
    entry = Entry(b"d", DIRECTORY, 0o2775, info.st_uid, info.st_gid, 0, 0)
    directories, put = put_of(base, entry)
    before_chmod(b"d", lambda: put_program(base))
    try:
        put._try(b"d", put._finish_directory, entry)
    finally:
        directories.close()
    assert b"became" in put.problems[0]
    assert os.lstat(base / "in/d").st_mode & 0o7000 == 0


def test_a_file_that_is_removed_before_it_is_in_its_place_is_that_entrys_problem_alone(base):
    info = os.lstat(base / "in")
    entry = Entry(b"f", FILE, 0o644, info.st_uid, info.st_gid, 0, 4)
    directories, put = put_of(base, entry)

    reading, writing = os.pipe()
    os.write(writing, b"data")
    try:
        put.fill(Action(0, entry, None, fills=True), 4, Pipe(reading, -1))
        (aside,) = [each for each in (base / "in").iterdir() if each.is_file() and each.name != "file"]
        aside.unlink()
        put.finish(lambda: None)
    finally:
        directories.close()
        os.close(reading)
        os.close(writing)
    assert len(put.problems) == 1
    assert b"No such file" in put.problems[0]
    assert not (base / "in/f").exists()


def test_a_link_that_becomes_a_file_as_it_is_given_away_leaves_the_file_its_owner(base, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    (base / "in/l").symlink_to("nowhere")
    real_chown = os.chown

    def chown(path, *args, **named):
        os.unlink(base / "in/l")
        (base / "in/l").write_bytes(b"another's")
        real_chown(base / "in/l", 1234, 1234)
        real_chown(path, *args, **named)

    monkeypatch.setattr(os, "chown", chown)
    FarCalls(f"{base}/in/**").set_mode(base / "in/l", owner="1")
    assert os.lstat(base / "in/l").st_uid == 1234
