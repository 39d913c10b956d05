"""What of a /proc is covered: found by its modes, whatever the kernel calls it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsexec.far import sandbox_proc
from opsexec.far.sandbox_proc import MAX_HIDDEN, covered


def kernel(proc: Path, **files: int) -> str:
    """Make these files, `a__b` being b in the directory a, with their modes; returns the place."""
    for name, mode in files.items():
        path = proc / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(mode)
    for path in proc.rglob("*"):
        if path.is_dir():
            path.chmod(0o555)
    return str(proc)


def test_what_root_may_change_is_read_only_and_what_root_alone_reads_is_not_there(tmp_path: Path) -> None:
    proc = kernel(
        tmp_path, cpuinfo=0o444, mtrr=0o644, kcore=0o400, trigger=0o200, dynamic_debug__control=0o644,
        driver__rtc=0o444, fs__deep__er__option=0o600, fs__jbd2__info=0o444, pressure__io=0o666,
    )  # fmt: skip
    at = f"{proc}/"
    assert covered(proc) == [
        "--ro-bind", f"{at}dynamic_debug", f"{at}dynamic_debug",
        "--ro-bind", "/dev/null", f"{at}fs/deep/er/option",
        "--ro-bind", "/dev/null", f"{at}kcore",
        "--ro-bind", f"{at}mtrr", f"{at}mtrr",
        "--ro-bind", f"{at}pressure", f"{at}pressure",
        "--ro-bind", "/dev/null", f"{at}trigger",
    ]  # fmt: skip


def test_a_directory_is_made_read_only_before_what_is_hidden_in_it(tmp_path: Path) -> None:
    proc = kernel(tmp_path, fs__key=0o400, fs__option=0o644)
    place = f"{proc}/fs"
    assert covered(proc) == ["--ro-bind", place, place, "--ro-bind", "/dev/null", f"{place}/key"]


def test_a_directory_that_is_not_everybody_s_is_empty_inside(tmp_path: Path) -> None:
    proc = kernel(tmp_path, tty__driver__serial=0o444)
    place = tmp_path / "tty" / "driver"
    place.chmod(0o500)
    assert covered(proc) == ["--tmpfs", str(place), "--remount-ro", str(place)]


@pytest.mark.parametrize("many", [MAX_HIDDEN, MAX_HIDDEN + 1])
def test_with_very_much_that_is_hidden_the_whole_directory_is(tmp_path: Path, many: int) -> None:
    proc = kernel(tmp_path, fs__option=0o644, **{f"fs__key{at}": 0o400 for at in range(many)})
    found = covered(proc)
    whole = ["--tmpfs", f"{proc}/fs", "--remount-ro", f"{proc}/fs"]
    assert (found == whole) == (many > MAX_HIDDEN)
    assert len(found) == (4 if many > MAX_HIDDEN else 3 + 3 * many)


def test_what_is_too_deep_to_be_looked_into_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_proc, "DEEPEST", 1)
    proc = kernel(tmp_path, fs__a__b__c__option=0o644)
    assert covered(proc) == ["--tmpfs", f"{proc}/fs/a/b", "--remount-ro", f"{proc}/fs/a/b"]


def test_processes_links_and_the_reader_s_own_are_no_matter_of_this(tmp_path: Path) -> None:
    proc = kernel(tmp_path, **{"17__mem": 0o600, "self__mem": 0o600, "thread-self__mem": 0o600, "sys__kernel": 0o644})
    os.symlink("self/net", tmp_path / "net")
    os.symlink("/etc", tmp_path / "device-tree")
    assert covered(proc) == []


def test_what_goes_while_it_is_looked_at_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc = kernel(tmp_path, mtrr=0o644, stays=0o644)

    def lstat(path: str) -> os.stat_result:
        if path.endswith("mtrr"):
            raise FileNotFoundError(path)
        return os.stat(path)

    monkeypatch.setattr(os, "lstat", lstat)
    assert covered(proc) == ["--ro-bind", f"{proc}/stays", f"{proc}/stays"]


@pytest.mark.parametrize("may", [os.R_OK, os.W_OK])
def test_what_this_user_cannot_do_anyhow_is_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may: int) -> None:
    proc = kernel(tmp_path, mtrr=0o644, kcore=0o400)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == may)
    assert [word for word in covered(proc) if word.startswith(proc)] == (
        [f"{proc}/kcore"] if may == os.R_OK else [f"{proc}/mtrr"] * 2
    )
