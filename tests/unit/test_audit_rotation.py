from __future__ import annotations

import errno
import itertools
import json
import os
import shutil

import pytest

from opsexec.audit import AuditBroken, AuditLog, rotation, segment, verify
from opsexec.audit.segment import closed_segments
from opsexec.errors import AuditUnavailable
from tests.unit.audit_lines import an_allow, run_python, write_log


def first_line(path):
    with path.open("rb") as stream:
        return json.loads(stream.readline())


def last_line(path):
    return json.loads(path.read_bytes().splitlines()[-1])


def test_the_next_segment_goes_on_with_the_chain_and_names_sort_by_age(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 30, max_bytes=3000)
    files = [file for _, file in closed_segments(path)] + [path]
    assert len(files) > 3
    assert files[:-1] == sorted(files[:-1])
    for file, following in itertools.pairwise(files):
        assert first_line(following)["prev"] == last_line(file)["hash"]
        assert first_line(following)["seq"] == last_line(file)["seq"] + 1
        assert first_line(following)["step"]["type"] == "audit.rotate"
        assert file.stat().st_size <= 3000
        assert file.stat().st_mode & 0o777 == 0o600
    report = verify(path)
    assert report.ok, str(report)
    assert report.lines == 30 + report.rotations
    assert [segment.file for segment in report.segments] == files
    assert not list(tmp_path.glob("*.next"))


def test_segments_beyond_the_kept_ones_go_and_the_chain_says_from_where_it_begins(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 60, max_bytes=3000, keep=2)
    kept = closed_segments(path)
    assert len(kept) == 2
    report = verify(path)
    assert report.ok, str(report)
    assert report.first_seq == kept[0][0] > 0
    assert first_line(path)["step"]["oldest_seq"] == kept[0][0]
    assert f"starts at line {kept[0][0]}: older segments were removed" in str(report)


def test_keeping_no_closed_segment_leaves_the_active_one_alone(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 30, max_bytes=3000, keep=0)
    assert closed_segments(path) == []
    assert verify(path).ok
    assert verify(path).first_seq > 0


def test_keeping_all_removes_none(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 60, max_bytes=1000, keep=None)
    assert len(closed_segments(path)) > 32
    assert verify(path).first_seq == 0


def test_a_limit_smaller_than_one_line_still_makes_progress(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 5, max_bytes=1)
    assert verify(path).lines == 9


def test_a_writer_follows_the_rotation_of_another(tmp_path):
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as staying:
        staying.append(an_allow())
        write_log(path, 20, max_bytes=2000)
        entry = staying.append(an_allow())
    report = verify(path)
    assert report.ok, str(report)
    assert report.head == entry
    assert last_line(path)["hash"] == entry.hash


def test_a_closed_name_that_is_taken_is_never_overwritten(tmp_path):
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path, max_bytes=600) as log:
        log.append(an_allow())
        taken = path.with_name("audit.jsonl.0000000000000000")
        taken.write_bytes(b"mine")
        with pytest.raises(AuditBroken, match="exists already"):
            log.append(an_allow())
        assert taken.read_bytes() == b"mine"
        taken.unlink()
        assert log.append(an_allow()).seq == 2


def test_a_rotation_that_fails_after_the_last_rename_does_not_keep_the_log_locked(tmp_path, monkeypatch):
    def fake_sync_directory(directory):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(segment, "LOCK_WAIT_S", 0.2)
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path, max_bytes=600) as log:
        log.append(an_allow())
        with monkeypatch.context() as patch:
            patch.setattr(rotation, "sync_directory", fake_sync_directory)
            with pytest.raises(AuditUnavailable, match="can't be rotated"):
                log.append(an_allow())
        log.append(an_allow())
    report = verify(path)
    assert report.ok, str(report)
    assert len(closed_segments(path)) == 2


KILLED_AT_CALL = """
import os, pathlib, sys
from opsexec.audit import AuditLog
from tests.unit.audit_lines import an_allow
log = AuditLog.open(sys.argv[1], fsync="never", max_bytes=3000, keep=1)
left = int(sys.argv[2])
def dying(name):
    real = getattr(os, name)
    def call(*arguments):
        global left
        left -= 1
        if left < 0:
            os._exit(42)
        return real(*arguments)
    setattr(os, name, call)
for name in ("open", "write", "fsync", "fdatasync", "link", "rename", "unlink"):
    dying(name)
for number in range(12):
    log.append(an_allow(number))
"""


def test_a_rotation_killed_before_any_of_its_steps_leaves_a_whole_chain_that_goes_on(tmp_path):
    begun = tmp_path / "begun" / "audit.jsonl"
    write_log(begun, 20, max_bytes=3000, keep=1)
    assert verify(begun).first_seq > 0
    begun_head = verify(begun).head
    assert begun_head is not None
    finished = False
    for calls in range(80):
        path = tmp_path / str(calls) / "audit.jsonl"
        shutil.copytree(begun.parent, path.parent)
        done = run_python(KILLED_AT_CALL, path, calls, check=False)
        assert done.returncode in (0, 42), done.stderr
        report = verify(path)
        assert report.ok, f"killed at call {calls}: {report}"
        assert report.head is not None
        assert report.head.seq >= begun_head.seq
        write_log(path, 20, max_bytes=3000, keep=1)
        report = verify(path)
        assert report.ok, f"killed at call {calls}, then gone on: {report}"
        assert len(closed_segments(path)) == 1
        assert sorted(file.name for file in path.parent.iterdir()) == [
            "audit.jsonl",
            closed_segments(path)[0][1].name,
        ]
        finished = done.returncode == 0
        if finished:
            break
    assert finished
    assert calls > 15
