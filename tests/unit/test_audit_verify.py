from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.audit import AuditLog, verify
from opsexec.audit.record import AuditEntry, seal
from opsexec.audit.segment import closed_segments
from opsexec.errors import AuditUnavailable
from tests.unit.audit_lines import an_allow, write_log


def make_log(directory):
    """Three segments of a few lines: two closed, one active."""
    path = Path(directory) / "audit.jsonl"
    with AuditLog.open(path, fsync="never", max_bytes=2000) as log:
        number = 0
        while len(closed_segments(path)) < 2 or path.read_bytes().count(b"\n") < 3:
            log.append(an_allow(number))
            number += 1
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """(file name, its bytes) of a good log, oldest segment first."""
    path = make_log(tmp_path_factory.mktemp("log"))
    assert verify(path).ok
    files = [file for _, file in closed_segments(path)] + [path]
    return [(file.name, file.read_bytes()) for file in files]


def check(files, head=None):
    with tempfile.TemporaryDirectory() as directory:
        for name, data in files:
            (Path(directory) / name).write_bytes(data)
        return verify(Path(directory) / "audit.jsonl", head=head)


def expect(report, file, line):
    assert report.problem is not None, "the damage was not found"
    assert (report.problem.file.name, report.problem.line) == (file, line), str(report)
    assert not report.ok
    assert str(report).endswith(f"{file}:{line}: {report.problem.detail}")


def line_at(data, position):
    return data[:position].count(b"\n") + 1


def test_a_whole_log_verifies_and_says_its_head_and_counts(log):
    report = check(log)
    assert report.ok
    assert report.rotations == 2
    assert report.first_seq == 0
    assert report.lines == sum(data.count(b"\n") for _, data in log)
    for segment, (name, data) in zip(report.segments, log, strict=True):
        last = json.loads(data.splitlines()[-1])
        assert segment.file.name == name
        assert segment.lines == data.count(b"\n")
        assert segment.head == AuditEntry(last["seq"], last["hash"])
    assert report.head == report.segments[-1].head


def test_every_byte_with_one_bit_flipped_is_found_and_its_line_named(log):
    for index, (name, data) in enumerate(log):
        for position in range(len(data)):
            flipped = bytearray(data)
            flipped[position] ^= 1
            files = [*log[:index], (name, bytes(flipped)), *log[index + 1 :]]
            expect(check(files), name, line_at(data, position))


@given(st.data())
def test_any_byte_changed_to_any_other_is_found_and_its_line_named(log, data):
    index = data.draw(st.integers(0, len(log) - 1))
    name, old = log[index]
    position = data.draw(st.integers(0, len(old) - 1))
    mask = data.draw(st.integers(1, 255))
    new = old[:position] + bytes([old[position] ^ mask]) + old[position + 1 :]
    expect(check([*log[:index], (name, new), *log[index + 1 :]]), name, line_at(old, position))


def everything(log):
    """(file index, line index) of every line, oldest first."""
    return [(file, line) for file, (_, data) in enumerate(log) for line in range(data.count(b"\n"))]


def with_lines(log, change):
    """The log after `change` of its lists of lines, one list a file."""
    lists = [data.splitlines(keepends=True) for _, data in log]
    change(lists)
    return [(name, b"".join(lines)) for (name, _), lines in zip(log, lists, strict=True)]


def test_any_line_removed_is_found_and_its_place_named(log):
    head = check(log).head
    places = everything(log)
    for place, following in itertools.pairwise([*places, None]):
        file, line = place
        damaged = with_lines(log, lambda lists, file=file, line=line: lists[file].pop(line))
        if following is None:  # the end: only who kept the head elsewhere can tell
            assert check(damaged).ok
            expect(check(damaged, head), log[file][0], line + 1)
            continue
        next_file, next_line = following
        expect(check(damaged), log[next_file][0], 1 if next_file != file else next_line)


def test_any_two_lines_swapped_are_found_at_the_first(log):
    for (file_a, line_a), (file_b, line_b) in itertools.combinations(everything(log), 2):

        def swap(lists, file_a=file_a, line_a=line_a, file_b=file_b, line_b=line_b):
            lists[file_a][line_a], lists[file_b][line_b] = lists[file_b][line_b], lists[file_a][line_a]

        expect(check(with_lines(log, swap)), log[file_a][0], line_a + 1)


@given(st.data())
def test_any_line_repeated_anywhere_is_found(log, data):
    places = everything(log)
    source_file, source_line = data.draw(st.sampled_from(places))
    file, line = data.draw(st.sampled_from(places))

    def repeat(lists):
        lists[file].insert(line, lists[source_file][source_line])

    found = check(with_lines(log, repeat)).problem
    assert found is not None
    assert found.file.name == log[file][0]
    # A line put before itself is first a copy in its own place: the second of the two is the one too many.
    assert found.line == line + 1 + ((source_file, source_line) == (file, line))


def test_a_forged_line_with_a_good_hash_of_its_own_breaks_the_next(log):
    lines = log[0][1].splitlines(keepends=True)
    old = json.loads(lines[1])
    forged, _ = seal({**dict.fromkeys(an_allow()), "host": "evil", "outcome": None}, old["seq"], old["prev"])

    def replace(lists):
        lists[0][1] = forged

    report = check(with_lines(log, replace))
    expect(report, log[0][0], 3)
    assert report.problem.why == "prev"


def test_a_segment_missing_from_the_middle_or_the_start_is_found(log):
    report = check([log[0], log[2]])
    expect(report, log[2][0], 1)
    assert report.problem.why == "seq"
    report = check(log[1:])
    expect(report, log[1][0], 1)
    assert report.problem.why == "missing"
    assert "no rotation says they were removed" in report.problem.detail


def test_more_segments_missing_than_retention_says_it_removed_is_found(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 60, max_bytes=2000, keep=3)
    assert verify(path).ok
    closed_segments(path)[0][1].unlink()
    report = verify(path)
    assert report.problem is not None
    assert report.problem.why == "missing"


def test_lines_cut_off_the_front_of_the_only_segment_are_found(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 5)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[2:]))
    report = verify(path)
    assert report.problem is not None
    assert (report.problem.why, report.problem.line) == ("seq", 1)


def test_an_active_segment_emptied_behind_closed_ones_is_found(log):
    report = check([*log[:2], (log[2][0], b"")])
    assert report.problem is not None
    assert report.problem.why == "missing"


def test_a_head_kept_elsewhere_shows_a_chain_written_anew(tmp_path):
    path = tmp_path / "audit.jsonl"
    kept = write_log(path, 3)[1]
    assert verify(path, head=kept).ok
    path.unlink()
    write_log(path, 3)
    report = verify(path, head=kept)
    assert report.problem is not None
    assert (report.problem.why, report.problem.line) == ("head", 2)


def test_an_endless_line_is_read_in_bounded_pieces(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 1)
    with path.open("ab") as stream:
        stream.write(b"x" * (3 << 20))
    report = verify(path)
    assert report.problem is not None
    assert (report.problem.why, report.problem.line) == ("bad_json", 2)
    assert report.problem.detail == "a line longer than 1048576 bytes"


def test_lines_cut_off_the_end_are_found_by_a_head_kept_elsewhere(tmp_path):
    path = tmp_path / "audit.jsonl"
    entries = write_log(path, 5)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert verify(path).ok
    assert verify(path, head=entries[2]).ok
    for kept in entries[3:]:
        report = verify(path, head=kept)
        assert report.problem is not None
        assert (report.problem.why, report.problem.line) == ("missing", 4)
        assert report.problem.detail == f"the chain ends at line number 2, but line number {kept.seq} was written"
    path.write_bytes(b"")
    report = verify(path, head=entries[0])
    assert report.problem is not None
    assert (report.problem.why, report.problem.line) == ("missing", 1)
    assert "the chain is empty" in report.problem.detail


def test_a_head_whose_segment_retention_removed_is_no_longer_looked_for(tmp_path):
    path = tmp_path / "audit.jsonl"
    first = write_log(path, 60, max_bytes=2000, keep=3)[0]
    report = verify(path, head=first)
    assert report.ok
    assert report.first_seq > first.seq


def test_a_report_says_what_was_read_what_was_repaired_and_where_it_begins(tmp_path):
    path = tmp_path / "audit.jsonl"
    last = write_log(path, 3)[-1]
    assert str(verify(path)) == f"{path}: 3 lines in 1 files, head {last.seq} {last.hash}"
    with path.open("ab") as stream:
        stream.write(b"torn")
    write_log(path, 1)
    report = verify(path)
    assert report.repairs == 1
    assert str(report).endswith("; torn tails put aside: 1")
    path.unlink()
    write_log(path, 60, max_bytes=2000, keep=3)
    report = verify(path)
    assert f"; starts at line {report.first_seq}: older segments were removed" in str(report)
    assert f" in {len(report.segments)} files, " in str(report)


def test_a_log_without_lines_is_whole_and_one_that_is_not_there_is_an_error(tmp_path):
    path = tmp_path / "audit.jsonl"
    with pytest.raises(AuditUnavailable, match="No such file"):
        verify(path)
    write_log(path, 0)
    assert verify(path).ok
    assert str(verify(path)) == f"{path}: no lines yet"


def test_verify_reads_a_log_that_is_being_written(tmp_path):
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path, max_bytes=3000, keep=2) as log:
        for number in range(100):
            log.append(an_allow(number))
            report = verify(path)
            assert report.ok, str(report)
