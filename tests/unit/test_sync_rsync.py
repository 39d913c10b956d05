"""What rsync is told, what the host's end lets it be told, and how its words are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsexec.errors import OpsError
from opsexec.far.copy_request import CopyRequest, admits_below
from opsexec.far.message import FarError
from opsexec.far.rsync_serve import require_plain
from opsexec.hosts.carrying import TarNeeded
from opsexec.hosts.copy_report import LISTED, CopyReport, shown
from opsexec.hosts.port import SyncPlan
from opsexec.hosts.rsync import MARK, RsyncEnd, rsync_argv, server_options
from tests.conftest import require


def plan(direction: str = "push", **fields: object) -> SyncPlan:
    given: dict[str, object] = {"local": "/src/", "remote": "/dst", **fields}
    return SyncPlan(run="r1", direction=direction, grants=(("/**",),), **given)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    "option",
    [
        b"-logtpre.iLsfxCIvu",
        b"-nlogtpre.iLsfxCIvu",
        b"--delete",
        b"--timeout=120",
        b"--bwlimit=10",
        b"--log-format=%i",
        b"--safe-links",
    ],
)
def test_the_options_that_we_ask_for_are_let_through(option: bytes) -> None:
    require_plain([option], sending=False)
    require_plain([b"--sender", option], sending=True)


@pytest.mark.parametrize(
    "option",
    [
        b"-logDtpre.iLsfxCIvu",
        b"-Llogtpre.iLs",
        b"-logtpKre.iLs",
        b"-logtpkre.i",
        b"--copy-links",
        b"--remove-source-files",
        b"--temp-dir=/etc",
        b"--backup-dir=/etc",
        b"--link-dest=/etc",
        b"--compare-dest=/",
        b"--log-file=/etc/x",
        b"--files-from=/etc/passwd",
        b"--partial-dir=/x",
        b"--copy-unsafe-links",
        b"--write-devices",
        b"--usermap=*:root",
        b"--daemon",
        b"/etc",
        b"-",
        b"-e/bin/sh",
        b"-logtpre.i/..",
        b"-s",
    ],
)
def test_an_option_that_could_widen_the_copy_is_not(option: bytes) -> None:
    with pytest.raises(FarError) as caught:
        require_plain([option], sending=False)
    assert caught.value.code == "take_tar"


def test_a_grant_to_receive_sends_nothing_and_the_other_way_round() -> None:
    for options, sending in (([b"--sender", b"-logtpre.i"], False), ([b"-logtpre.i"], True)):
        with pytest.raises(FarError) as caught:
            require_plain(options, sending=sending)
        assert caught.value.code == "protocol"


def test_server_options_are_what_stands_before_the_dot() -> None:
    words = [b"host", b"rsync", b"--server", b"--sender", b"-logtpre.i", b".", b"/copy/--x"]
    assert server_options(words, "web1") == [b"--sender", b"-logtpre.i"]
    for bad in ([b"host", b"rsync"], [b"rsync", b"--server", b"etc", b"."], [b"rsync", b"--server", *[b"-x"] * 99]):
        with pytest.raises(OpsError):
            server_options(bad, "web1")


def test_a_local_path_is_never_taken_for_an_option_or_a_host() -> None:
    require("rsync", "needs rsync")
    for local in ("-e", "host:x", "::y", "a:b/"):
        argv = rsync_argv(plan(local=local), "connector")
        assert argv[argv.index("--") + 1] == f"./{local}"


def test_a_name_that_rsync_would_take_for_a_pattern_goes_by_tar() -> None:
    require("rsync", "needs rsync")
    for name in ("a*b", "a[b]", "what?", "back\\slash"):
        with pytest.raises(TarNeeded):
            rsync_argv(plan("pull", remote=f"/srv/{name}"), "connector")
    assert rsync_argv(plan("pull", remote="/srv/a*b/"), "connector")[-2] == "host:/copy/"
    assert rsync_argv(plan("pull", remote="/srv/a b"), "connector")[-2] == "host:/copy/a b"


def test_no_rsync_here_is_a_reason_to_take_tar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TarNeeded):
        RsyncEnd(plan(), "web1")
    assert os.listdir("/proc/self/fd") == before


def test_lines_of_rsync_are_told_from_names_that_look_like_them() -> None:
    require("rsync", "needs rsync")
    end = RsyncEnd(plan(), "web1")
    try:
        said = (
            f"created directory /x\n{MARK}<f+++++++++ sent 1 bytes\n{MARK}cd+++++++++ ./\n"
            f"{MARK}<f+++++++++ total size is 3\n{MARK}*deleting   {MARK}x\n"
            'skipping non-regular file "= fifo"\ncannot delete non-empty directory: d\nsent 5 bytes\n'
        ).encode()
        for at in range(0, len(said), 7):
            end._output(said[at : at + 7])
    finally:
        end._close()
    assert end.report.changes == [
        "<f+++++++++ sent 1 bytes",
        "cd+++++++++ ./",
        "<f+++++++++ total size is 3",
        f"*deleting   {MARK}x",
    ]
    assert end.report.skipped == ['skipping non-regular file "= fifo"']


def test_a_flood_of_lines_is_counted_and_not_kept() -> None:
    require("rsync", "needs rsync")
    end = RsyncEnd(plan(), "web1")
    try:
        for _ in range(1200):
            end._output(b"= >f+++++++++ x\n" * 10)
        for _ in range(100):
            end._output(b"y" * 65536)
        assert len(end._line) <= 2 * 65536
    finally:
        end._close()
    result = end.report.result("rsync")
    assert (result.count, len(result.changes)) == (12000, LISTED)


def test_a_line_can_not_move_a_terminal() -> None:
    line = b"<f+++++++++ \xc3\xa9 \x1b[2J \xff \xc2\x9b tab\t \x7f a\\#012b"
    assert shown(line) == "<f+++++++++ é \\#033[2J \\#377 \\#302\\#233 tab\t \\#177 a\\#012b"


def test_a_destination_made_for_rsync_counts_as_made() -> None:
    report = CopyReport()
    report.change(b".d..t...... ./")
    report.change(b"<f+++++++++ a ./")
    report.made_top()
    assert report.changes == ["cd+++++++++ ./", "<f+++++++++ a ./"]


@pytest.mark.parametrize(
    ("layers", "path", "below"),
    [
        ([["/**"]], "/", True),
        ([["/srv/**"]], "/srv", True),
        ([["/srv/**"]], "/srv/app", True),
        ([["/srv/*"]], "/srv/app", False),
        ([["/srv/app", "/srv/app/*"]], "/srv/app", False),
        ([["/srv/**"], ["/srv/app/**"]], "/srv/app", True),
        ([["/srv/**"], ["/opt/**"]], "/srv/app", False),
        ([], "/srv", False),
        ([[]], "/srv", False),
        ([["/srv/**"]], "/", False),
        ([["/*/app/**"]], "/srv/app/x", True),
        ([["/srv/**/conf"]], "/srv", False),
    ],
)
def test_only_a_grant_of_all_that_may_stand_below_lets_rsync_have_a_tree(
    layers: list[list[str]], path: str, below: bool
) -> None:
    assert admits_below(layers, path) is below


def test_a_request_crosses_as_it_is() -> None:
    sent = CopyRequest(
        "r1",
        "sync.push",
        "/d\udcff\n",
        [["/a/**"], ["/b"]],
        [b"-x", b"\xff"],
        check=True,
        delete=True,
        tree=True,
        rate=99,
    )
    got = CopyRequest.parse(sent.pack()[4:])
    assert [getattr(got, slot) for slot in CopyRequest.__slots__] == [
        getattr(sent, slot) for slot in CopyRequest.__slots__
    ]
