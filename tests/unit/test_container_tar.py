"""The check of tar streams: what a hostile one tries, and that an honest one passes as it is."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.engine.tar_check import END, TarCheck, stays_inside
from opsexec.errors import LimitExceeded, OpsError, StepFailed

Add = Callable[[tarfile.TarFile], None]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> Add:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        for key, value in fields.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(data))

    return add


def archive_of(*adds: Add, form: int = tarfile.PAX_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        for add in adds:
            add(archive)
    return data.getvalue()


def passed(data: bytes, max_bytes: int = 1 << 20, max_entries: int = 100) -> tuple[TarCheck, bytes]:
    checker = TarCheck(max_bytes, max_entries, uid=7, gid=8)
    return checker, b"".join(checker.passed(io.BytesIO(data))) + END


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


@pytest.mark.parametrize(
    "adds",
    [
        [entry("../x")], [entry("a/../../x")], [entry("/etc/x")], [entry("a/..")], [entry("x" * 5000)],
        [entry("dev", tarfile.CHRTYPE)], [entry("dev", tarfile.BLKTYPE)], [entry("pipe", tarfile.FIFOTYPE)],
        [entry("hard", tarfile.LNKTYPE, linkname="/etc/shadow")], [entry("hard", tarfile.LNKTYPE, linkname="../x")],
        [entry("hard", tarfile.LNKTYPE, linkname="never-came")],
        [entry("l", tarfile.SYMTYPE, linkname="a"), entry("l/x")],
        [entry("l", tarfile.SYMTYPE, linkname="a"), entry("./l//x")],
        [entry("l", tarfile.SYMTYPE, linkname="a"), entry("h", tarfile.LNKTYPE, linkname="l")],
        [entry("sparse", tarfile.GNUTYPE_SPARSE)],
        [entry("s", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 13})],
    ],
)  # fmt: skip
def test_what_would_be_written_elsewhere_ends_the_copy(adds):
    with pytest.raises(StepFailed):
        passed(archive_of(*adds))


@pytest.mark.parametrize("target", ["/etc", "../../x", "a/../../../x", ""])
def test_a_link_that_leads_out_is_left_out_and_counted(target):
    checker, out = passed(archive_of(entry("d", tarfile.DIRTYPE), entry("d/l", tarfile.SYMTYPE, linkname=target)))
    assert (list(members(out)), checker.left_out) == (["d"], 1)


def test_an_honest_tree_passes_without_owners_setuid_bits_or_attributes():
    names = "d", "d/" + "n" * 200, "d/ünï", "d/link", "d/hard"
    out = passed(
        archive_of(
            entry(names[0], tarfile.DIRTYPE, mode=0o2755, uname="root"),
            entry(names[1], data=b"x" * 1000, mode=0o4755, pax_headers={"SCHILY.xattr.security.capability": "x"}),
            entry(names[2], data=b"y", mode=0o600, uid=0),
            entry(names[3], tarfile.SYMTYPE, linkname="ünï"),
            entry(names[4], tarfile.LNKTYPE, linkname=names[1]),
        )
    )[1]
    found = members(out)
    assert set(found) == set(names)
    assert {(each.uid, each.gid, each.uname) for each in found.values()} == {(7, 8, "")}
    assert [found[name].mode for name in names[:3]] == [0o755, 0o755, 0o600]
    assert not any("SCHILY" in key for each in found.values() for key in each.pax_headers)
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        linked = archive.extractfile(names[4])
        assert linked is not None
        assert linked.read() == b"x" * 1000


def test_a_tree_of_a_claimed_terabyte_ends_before_its_first_byte():
    info = tarfile.TarInfo("big")
    info.size = 1 << 40
    with pytest.raises(LimitExceeded, match="bytes"):
        passed(info.tobuf(tarfile.GNU_FORMAT))


def test_a_million_entries_end_at_the_limit():
    with pytest.raises(LimitExceeded, match="100 entries"):
        passed(archive_of(*(entry(f"f{number}") for number in range(101))))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_ends_the_copy(kind):
    info = tarfile.TarInfo("h")
    info.type, info.size = kind, 1 << 33
    with pytest.raises(StepFailed, match="header"):
        passed(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))


@pytest.mark.parametrize("cut", [1, 511, 513, 700, 1600])
def test_a_stream_that_breaks_off_is_an_error(cut):
    data = archive_of(entry("a", data=b"z" * 1000), entry("b", data=b"z" * 1000))
    with pytest.raises(OpsError):
        passed(data[:cut])


@given(st.binary(max_size=4096))
def test_noise_is_an_error_or_nothing_and_never_another_exception(data):
    try:
        _, out = passed(data)
    except OpsError:
        return
    members(out)


@given(st.integers(0, 2047), st.binary(min_size=1, max_size=8))
def test_a_damaged_stream_is_an_error_or_a_clean_one(at, noise):
    data = bytearray(archive_of(entry("a", data=b"1" * 300), entry("l", tarfile.SYMTYPE, linkname="a"), entry("b")))
    data[at : at + len(noise)] = noise
    try:
        _, out = passed(bytes(data))
    except OpsError:
        return
    for name, member in members(out).items():
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert not member.issym() or stays_inside(name, member.linkname)
