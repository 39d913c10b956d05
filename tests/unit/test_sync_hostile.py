"""What the other end of a copy sends is judged before anything is touched: names, links, sizes, headers."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opsexec.far import copy_pipe, tree_entry
from opsexec.far.copy_pipe import Pipe, Told
from opsexec.far.exclude import Excludes
from opsexec.far.message import FarError, pack_message
from opsexec.far.tree_entry import (
    DIRECTORY,
    FILE,
    HEAD,
    LINK,
    MAX_DEPTH,
    Acceptance,
    Entry,
    unpack_entries,
    unsafe_link,
)
from opsexec.far.tree_receive import Receiver
from opsexec.far.tree_send import _header
from opsexec.far.tree_stream import members
from opsexec.hosts.copy_report import CopyReport


def entry(name: bytes, kind: int = FILE, target: bytes = b"", size: int = 0) -> Entry:
    return Entry(name, kind, 0o755 if kind == DIRECTORY else 0o644, 0, 0, size, 10**18, target)


def refusal(work: Callable[[], object]) -> str:
    """The code of the FarError that this raises; empty when it raises none."""
    try:
        work()
    except FarError as error:
        return error.code
    return ""


BAD_NAMES = [
    b"",
    b"/etc/passwd",
    b"../x",
    b"a/../../x",
    b"..",
    b"a//b",
    b"a/",
    b"./a",
    b"a/.",
    b"x\0y",
    b"n" * 256,
    b"a/" * 2100 + b"b",
    b"a" + b"/a" * MAX_DEPTH,
    b"missing/x",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(name: bytes) -> None:
    acceptance = Acceptance()
    acceptance.check(entry(b"a", DIRECTORY))
    with pytest.raises(FarError) as caught:
        acceptance.check(entry(name))
    assert caught.value.code == "protocol"


@pytest.mark.parametrize("kind", [0, 4, 5, 255])
def test_devices_and_kinds_unheard_of_are_refused(kind: int) -> None:
    with pytest.raises(FarError, match="no file, directory or link"):
        Acceptance().check(entry(b"sda", kind))


def test_a_file_in_a_link_is_refused() -> None:
    acceptance = Acceptance()
    acceptance.check(entry(b"etc", LINK, b"/etc"))
    with pytest.raises(FarError, match="without its directory"):
        acceptance.check(entry(b"etc/passwd"))


def test_the_same_name_twice_is_refused() -> None:
    acceptance = Acceptance()
    acceptance.check(entry(b"a", LINK, b"/etc"))
    with pytest.raises(FarError, match="twice"):
        acceptance.check(entry(b"a", DIRECTORY))


def test_only_what_was_asked_for_by_name_is_taken() -> None:
    acceptance = Acceptance(b"app")
    acceptance.check(entry(b"app", DIRECTORY))
    acceptance.check(entry(b"app/x"))
    for name in (b".bashrc", b"app2"):
        with pytest.raises(FarError, match="not asked for"):
            acceptance.check(entry(name))
    with pytest.raises(FarError, match="not the first"):
        acceptance.check(entry(b".", DIRECTORY))


@pytest.mark.parametrize(
    ("name", "target", "unsafe"),
    [
        (b"l", b"a", False),
        (b"l", b"/etc", True),
        (b"l", b"..", True),
        (b"l", b"../x", True),
        (b"d/l", b"../x", False),
        (b"d/l", b"../../x", True),
        (b"l", b"a/../b", True),
        (b"l", b"a/../../b", True),
        (b"d/e/l", b"../..", True),
        (b"l", b"", True),
        (b"l", b"./a", False),
        (b"l", b"a/..", True),
        (b"d/l", b"./../x", False),
        (b"l", b"...", False),
    ],
)
def test_a_link_that_leads_out_is_told_from_one_that_does_not(name: bytes, target: bytes, unsafe: bool) -> None:
    assert unsafe_link(name, target) is unsafe


@given(st.binary(max_size=300))
@example(HEAD.pack(FILE, 0, 0, 0, 0, 0, 65535, 65535))
def test_any_bytes_are_entries_or_refused(data: bytes) -> None:
    assert refusal(lambda: list(unpack_entries(data))) in ("", "protocol")


@given(
    st.binary(min_size=1, max_size=50),
    st.sampled_from([FILE, DIRECTORY, LINK]),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63),
    st.integers(-(2**62), 2**62),
    st.binary(max_size=20),
)
def test_an_entry_crosses_as_it_is(
    name: bytes, kind: int, mode: int, uid: int, size: int, mtime: int, target: bytes
) -> None:
    sent = Entry(name, kind, mode, uid, uid // 2, size, mtime, target)
    (got,) = unpack_entries(sent.pack())
    assert [getattr(got, slot) for slot in Entry.__slots__] == [getattr(sent, slot) for slot in Entry.__slots__]


def pipe_of(data: bytes) -> Pipe:
    """A pipe that holds these bytes and then ends."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            try:
                file.write(data)
            except BrokenPipeError:
                return

    threading.Thread(target=write).start()
    return Pipe(reading, -1)


def read_members(data: bytes) -> list[tuple[int, str, int]]:
    pipe = pipe_of(data)
    found = []
    try:
        for place, sign, size in members(pipe):
            found.append((place, sign, size))
            pipe.read(size + -size % 512)
    finally:
        os.close(pipe.reading)
    return found


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def test_the_stream_is_tar() -> None:
    assert _header(b"7", 9 << 33) == header("7", size=9 << 33)
    end = b"\0" * 1024
    assert read_members(
        header("3", size=5) + b"hello".ljust(512, b"\0") + header("4!", size=2) + b"no".ljust(512, b"\0") + end
    ) == [
        (3, "", 5),
        (4, "!", 2),
    ]


@pytest.mark.parametrize(
    "data",
    [
        header("/etc/passwd"),
        header("../x"),
        header("x"),
        header("1", tarfile.SYMTYPE, link="/etc"),
        header("1", tarfile.LNKTYPE, link="2"),
        header("1", tarfile.CHRTYPE),
        header("1", tarfile.BLKTYPE),
        header("1", tarfile.FIFOTYPE),
        header("1", tarfile.DIRTYPE),
        header("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 40),
        header("x", tarfile.XHDTYPE, size=1 << 40),
        header("1", tarfile.XGLTYPE),
        header("1", tarfile.GNUTYPE_SPARSE),
        header("1!", size=1 << 30),
        header("9" * 30),
        header("-1"),
        header("1")[:100] + b"x" * 412,
        b"\xff" * 512,
        b"\0" * 512 + b"x" * 512,
        header("1", size=-1),
    ],
)
def test_a_member_that_could_mean_harm_is_refused(data: bytes) -> None:
    with pytest.raises(FarError) as caught:
        read_members(data + b"\0" * 2048)
    assert caught.value.code == "protocol"


@given(st.binary(max_size=1600))
def test_any_bytes_are_members_or_refused(data: bytes) -> None:
    assert refusal(lambda: read_members(data)) in ("", "protocol", "cut")


def receive(
    dst: Path, frames: list[tuple[int, bytes]], stream: bytes = b"", *, inside: bool = True
) -> list[tuple[int, bytes]]:
    """What a receiver that doesn't trust the other end makes of this; returns what it reports."""
    data = b"".join(copy_pipe.HEADER.pack(kind, len(payload)) + payload for kind, payload in frames) + stream
    pipe = pipe_of(data)
    pipe.writing = os.open(os.devnull, os.O_WRONLY)
    reading, writing = os.pipe()
    parent = os.open(dst, os.O_RDONLY | os.O_DIRECTORY)
    try:
        Receiver(pipe, Pipe(-1, writing), parent, b".", Excludes(()), inside=inside).receive()
        os.close(writing)
        writing = -1
        said: list[tuple[int, bytes]] = []
        results = Pipe(reading, -1)
        while True:
            if refusal(lambda: said.append(results.receive())) == "cut":
                return said
    finally:
        for fd in (pipe.reading, pipe.writing, reading, writing, parent):
            if fd >= 0:
                os.close(fd)


LISTED = (copy_pipe.LISTED, b"")


def listing(*entries: Entry) -> list[tuple[int, bytes]]:
    return [(copy_pipe.ENTRIES, b"".join(each.pack() for each in entries)), LISTED]


def test_a_directory_takes_the_place_of_a_link_and_nothing_is_written_through_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    dst = tmp_path / "dst"
    dst.mkdir()
    (dst / "d").symlink_to(outside)
    stream = header("1", size=1) + b"x".ljust(512, b"\0") + b"\0" * 1024
    receive(dst, listing(entry(b"d", DIRECTORY), entry(b"d/f", size=1)), stream)
    assert list(outside.iterdir()) == []
    assert not (dst / "d").is_symlink()
    assert (dst / "d" / "f").read_bytes() == b"x"


def test_links_that_lead_out_and_set_id_bits_are_not_taken_from_a_host(tmp_path: Path) -> None:
    program = entry(b"su", size=1)
    program.mode = 0o6755
    stream = header("0", size=1) + b"x".ljust(512, b"\0") + b"\0" * 1024
    said = receive(tmp_path, listing(program, entry(b"out", LINK, b"/etc/shadow"), entry(b"in", LINK, b"su")), stream)
    assert (tmp_path / "su").stat().st_mode & 0o7777 == 0o755
    assert not os.path.lexists(tmp_path / "out")
    assert os.readlink(tmp_path / "in") == "su"
    assert (copy_pipe.SKIPPED, pack_message([b'ignoring unsafe symlink "out" -> "/etc/shadow"'])) in said


@pytest.mark.parametrize(
    ("frames", "stream"),
    [
        ([(copy_pipe.ENTRIES, entry(b"../x").pack())], b""),
        ([(copy_pipe.ENTRIES, b"\0")], b""),
        ([(copy_pipe.WANTED, b"")], b""),
        ([(99, b"")], b""),
        (listing(entry(b"a", size=1)), header("5", size=1)),
        (listing(entry(b"a", size=1)), header("0", tarfile.SYMTYPE, link="/etc/passwd")),
        (listing(entry(b"d", DIRECTORY)), header("0", size=1)),
    ],
)
def test_what_breaks_the_rules_leaves_nothing_behind(
    tmp_path: Path, frames: list[tuple[int, bytes]], stream: bytes
) -> None:
    with pytest.raises(FarError) as caught:
        receive(tmp_path, frames, stream + b"\0" * 1024)
    assert caught.value.code == "protocol"
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_stream_that_ends_in_the_middle_of_a_file_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FarError) as caught:
        receive(tmp_path, listing(entry(b"a", size=1000)), header("0", size=1000) + b"new")
    assert caught.value.code == "cut"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_a_file_that_changed_while_it_was_read_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    stream = (
        header("0", size=4)
        + b"half".ljust(512, b"\0")
        + header("0~", size=9)
        + b"a changed".ljust(512, b"\0")
        + b"\0" * 1024
    )
    said = receive(tmp_path, listing(entry(b"a", size=4)), stream)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]
    assert (copy_pipe.PROBLEM, pack_message([b"a changed"])) in said


def test_too_many_owners_and_frames_over_the_limit_are_refused(tmp_path: Path) -> None:
    many = [(copy_pipe.USERS, pack_message([b"%d" % uid, b"u"])) for uid in range(65537)]
    with pytest.raises(FarError, match="owners"):
        receive(tmp_path, many)
    pipe = pipe_of(pack(">BI", copy_pipe.ENTRIES, 1 << 31))
    try:
        with pytest.raises(FarError, match="over the limit"):
            pipe.receive()
    finally:
        os.close(pipe.reading)


def test_a_list_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million names of 4 KiB would take this machine's memory."""
    monkeypatch.setattr(tree_entry, "MAX_NAMES", 1 << 20)
    acceptance = Acceptance()
    for n in range(256):
        acceptance.check(entry(b"%04d" % n, LINK, b"x" * 4092))
    with pytest.raises(FarError, match="more than 1 MiB of names"):
        acceptance.check(entry(b"last"))


def test_what_a_host_says_of_an_entry_is_cut(tmp_path: Path) -> None:
    texts = [b"x" * 1000000] * 3
    said = receive(
        tmp_path, [(copy_pipe.PROBLEM, pack_message(texts)), (copy_pipe.SKIPPED, pack_message(texts)), LISTED]
    )
    assert sum(len(payload) for _, payload in said) < 100000
    assert {copy_pipe.PROBLEM, copy_pipe.SKIPPED} <= {kind for kind, _ in said}


def test_what_a_host_reports_is_counted_and_kept_in_part() -> None:
    report = CopyReport()
    for _ in range(1000):
        report.change(b"\x01" * 200000)
        report.skip(b"\x01" * 200000)
        report.problem(b"\x01" * 200000)
    assert report.count == 1000
    assert sum(map(len, report.changes)) < 5 << 20
    assert sum(map(len, report.skipped + report.problems)) < 10 << 20


def test_a_failure_told_by_the_other_end_is_known_as_its_own() -> None:
    payload = pack_message([b"no_space", b"full"])
    pipe = pipe_of(copy_pipe.HEADER.pack(copy_pipe.FAILURE, len(payload)) + payload)
    try:
        with pytest.raises(Told, match="full"):
            pipe.receive()
    finally:
        os.close(pipe.reading)
