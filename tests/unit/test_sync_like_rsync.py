"""A copy that rsync doesn't carry does what rsync would: same tree, same lines, same things left out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsexec.far.tree_plan import SECOND, differs
from tests.conftest import require
from tests.parts.sync_trees import Copied, Dir, File, Link, copy_by_rsync, copy_by_tar, plant, snapshot

NAMES = st.sampled_from(
    [b"a", b"b", b"c", b".d", b"sent x", b"l\nf", b"\xff", "é".encode(), b"a b", b"-e", b"x.o", b"deleting"]
)
TIMES = st.sampled_from([10**18, 10**18 + 10**9, 1_500_000_000_123_456_789])
FILES = st.builds(
    File,
    st.sampled_from([b"", b"one", b"two", b"three", b"x" * 600]),
    st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o444]),
    TIMES,
)
LINKS = st.builds(Link, st.sampled_from([b"a", b"b/c", b"../a", b"../../out", b"/etc/passwd", b"b/../../x"]), TIMES)
MODES = st.sampled_from([0o755, 0o700, 0o2775, 0o555])
DIRS = st.recursive(
    st.builds(Dir, st.dictionaries(NAMES, FILES | LINKS, max_size=3), MODES, TIMES),
    lambda below: st.builds(Dir, st.dictionaries(NAMES, below | FILES | LINKS, max_size=4), MODES, TIMES),
    max_leaves=6,
)
EXAMPLES = 60
PATTERNS = st.sampled_from(
    ["a", "*.o", "/a", "b/", "b/c", "a/**", ".d/***", "**/c", "[ab]", "?", "s*x", "/a/b/", "l?f"]
)


@pytest.fixture(autouse=True, scope="module")
def _needs_rsync() -> None:
    require("rsync", "needs rsync to compare with")


@pytest.fixture
def place() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory(prefix="sync-") as name:
        yield os.fsencode(name)


def compare(
    place: bytes, source: bytes, target: bytes, *, delete: bool, check: bool, excludes: list[str], push: bool
) -> tuple[Copied, Copied]:
    """Copy `s<source>` to `<mechanism>/d<target>` both ways; the trees must come out alike."""
    status, theirs = copy_by_rsync(
        place + b"/" + source,
        place + b"/rsync/" + target,
        delete=delete,
        check=check,
        excludes=excludes,
        distrust=not push,
    )
    ours = copy_by_tar(
        place + b"/" + source, place + b"/tar/" + target, delete=delete, check=check, excludes=excludes, push=push
    )
    failed = bool(ours.problems or ours.failure)
    assert failed == (status != 0), (status, theirs, ours)
    if ours.failure is None:
        wanted, got = snapshot(place + b"/rsync", times=not failed), snapshot(place + b"/tar", times=not failed)
        wanted.pop(b"")
        got.pop(b"")
        assert got == wanted
    # rsync's dry run says of a directory that holds something excluded that it goes; the run itself then keeps it.
    if not failed and not (check and delete and excludes):
        arrows = [line.replace("<f", ">f", 1) if line.startswith("<f") else line for line in ours.lines]
        assert sorted(arrows) == sorted(theirs.lines)
        assert sorted(ours.skipped) == sorted(theirs.skipped)
    return theirs, ours


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    DIRS,
    DIRS,
    st.booleans(),
    st.lists(PATTERNS, max_size=2),
    st.booleans(),
    st.sampled_from(
        [
            (b"tree/", b"d"),
            (b"tree/", b"d/"),
            (b"tree", b"d"),
            (b"tree/", b"new"),
            (b"tree", b"new/"),
            (b"tree/.", b"d"),
        ]
    ),
)
def test_any_tree_onto_any_tree(
    source: Dir, target: Dir, delete: bool, excludes: list[str], push: bool, names: tuple[bytes, bytes]
) -> None:
    with tempfile.TemporaryDirectory(prefix="sync-") as name:
        place = os.fsencode(name)
        plant(place + b"/tree", source)
        for kind in (b"/rsync", b"/tar"):
            os.mkdir(place + kind)
            plant(place + kind + b"/d", target)
        try:
            compare(place, *names, delete=delete, check=True, excludes=excludes, push=push)
            _, first = compare(place, *names, delete=delete, check=False, excludes=excludes, push=push)
            again = copy_by_tar(
                place + b"/" + names[0], place + b"/tar/" + names[1], delete=delete, excludes=excludes, push=push
            )
            if not first.problems and not first.failure:
                assert (again.lines, again.sent) == ([], 0)
        finally:
            for path, folders, _ in os.walk(place):
                for folder in folders:
                    full = os.path.join(path, folder)
                    if not os.path.islink(full):
                        os.chmod(full, 0o700)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("target", [b"d", b"d/", b"new", b"new/", b"file", b"file/", b"link"])
@pytest.mark.parametrize("source", [b"s", b"s/", b"f", b"f/", b"e", b"e/", b"l", b"l/", b"to_dir", b"to_dir/", b"s/."])
def test_every_kind_of_source_onto_every_kind_of_destination(
    place: bytes, source: bytes, target: bytes, check: bool
) -> None:
    plant(place + b"/s", Dir({b"x": File(b"x"), b"y": Dir({b"z": File(b"z")})}))
    plant(place + b"/f", File(b"content", 0o640))
    plant(place + b"/e", Dir(mode=0o750))
    plant(place + b"/l", Link(b"f"))
    plant(place + b"/to_dir", Link(b"s"))
    for kind in (b"/rsync", b"/tar"):
        os.mkdir(place + kind)
        plant(place + kind + b"/d", Dir({b"old": File(b"old")}, mtime=10**18 + 5 * 10**9))
        plant(place + kind + b"/file", File(b"there"))
        plant(place + kind + b"/link", Link(b"d"))
    compare(place, source, target, delete=False, check=check, excludes=[], push=True)


def test_a_hard_link_a_fifo_and_a_socket_are_no_different(place: bytes) -> None:
    import socket

    plant(place + b"/s", Dir({b"x": File(b"x")}))
    os.link(place + b"/s/x", place + b"/s/same")
    os.mkfifo(place + b"/s/fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place + b"/s/socket")
        for kind in (b"/rsync", b"/tar"):
            os.mkdir(place + kind)
        _, ours = compare(place, b"s", b"d", delete=False, check=False, excludes=[], push=True)
    assert len(ours.skipped) == 2
    assert Path(os.fsdecode(place + b"/tar/d/s/same")).read_bytes() == b"x"


def test_what_is_excluded_is_not_deleted_either(place: bytes) -> None:
    plant(place + b"/s", Dir({b"x": File(b"x")}))
    for kind in (b"/rsync", b"/tar"):
        os.mkdir(place + kind)
        plant(
            place + kind + b"/d", Dir({b"k": Dir({b"keep.o": File(b"1"), b"go": File()}), b"x": Dir({b"q.o": File()})})
        )
    _, ours = compare(place, b"s/", b"d", delete=True, check=False, excludes=["*.o"], push=True)
    assert "*deleting   k/go" in ours.lines


@pytest.mark.parametrize(
    ("wanted", "present", "different"),
    [(5 * SECOND, 5 * SECOND, False), (5 * SECOND + 1, 5 * SECOND + 2, True), (5 * SECOND + 1, 5 * SECOND, False),
     (5 * SECOND, 6 * SECOND, True), (-SECOND, -SECOND, False)],
)  # fmt: skip
def test_a_file_system_that_keeps_whole_seconds_is_taken_at_its_word(
    wanted: int, present: int, different: bool
) -> None:
    assert differs(wanted, present) is different
