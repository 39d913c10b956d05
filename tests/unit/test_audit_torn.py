from __future__ import annotations

import hashlib
import json

import pytest

from opsexec.audit import AuditBroken, AuditLog, torn, verify
from opsexec.audit.record import GENESIS, REPAIR, maintenance, seal
from tests.unit.audit_lines import an_allow, run_python, write_log


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "audit.jsonl"
    write_log(path, 3)
    return path.read_bytes()


def test_a_log_torn_at_any_byte_loses_no_line_before_and_keeps_the_torn_bytes(tmp_path, whole):
    ends = [0] + [at + 1 for at, byte in enumerate(whole) if byte == 10]
    for length in range(len(whole) + 1):
        path = tmp_path / str(length) / "audit.jsonl"
        path.parent.mkdir()
        path.write_bytes(whole[:length])
        with AuditLog.open(path, fsync="never") as log:
            log.append(an_allow())
        kept = max(end for end in ends if end <= length)
        assert path.read_bytes().startswith(whole[:kept])
        report = verify(path)
        assert report.ok, str(report)
        aside = list(path.parent.glob("*.torn-*"))
        if kept == length:
            assert report.repairs == 0
            assert aside == []
            continue
        assert report.repairs == 1
        assert [file.read_bytes() for file in aside] == [whole[kept:length]]
        repair = lines_of(path)[-2]["step"]
        assert repair == {
            "type": "audit.repair",
            "file": aside[0].name,
            "bytes": length - kept,
            "sha256": hashlib.sha256(whole[kept:length]).hexdigest(),
        }
        assert aside[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "junk", [b"\0" * 9000, b"{}\n", b"not json\nnor this\n", b'{"seq":1}\nx', b"\n", b"\xff\xfe\n"]
)
def test_whatever_is_no_audit_line_after_the_last_good_one_is_put_aside(tmp_path, whole, junk):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(whole + junk)
    with AuditLog.open(path):
        pass
    assert verify(path).repairs == 1
    assert next(tmp_path.glob("*.torn-*")).read_bytes() == junk
    with AuditLog.open(path):
        pass
    assert verify(path).lines == 4


def test_more_junk_than_a_crash_can_leave_is_for_a_person_to_judge(tmp_path, whole):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(whole + b"x" * (9 << 20))
    with pytest.raises(AuditBroken, match="no audit lines"):
        AuditLog.open(path)
    assert path.stat().st_size == len(whole) + (9 << 20)


def test_a_tail_torn_by_another_process_is_repaired_by_the_next_append_of_one_that_lives(tmp_path, whole):
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:
        log.append(an_allow())
        with path.open("ab") as dying:
            dying.write(b'{"decision":"al')
        log.append(an_allow())
    report = verify(path)
    assert (report.ok, report.lines, report.repairs) == (True, 3, 1)


def test_verify_says_that_a_tail_is_torn_and_where(tmp_path, whole):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(whole[:-5])
    report = verify(path)
    assert report.problem is not None
    assert (report.problem.why, report.problem.line, report.problem.file) == ("torn", 3, path)
    assert report.lines == 2


KILLED_AT_CALL = """
import os, sys
from opsexec.audit import AuditLog
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
for name in ("open", "write", "fsync", "fdatasync", "ftruncate", "rename"):
    dying(name)
AuditLog.open(sys.argv[1]).close()
"""


def test_a_repair_killed_before_any_of_its_steps_is_finished_by_the_next_opening(tmp_path, whole):
    finished = False
    for calls in range(40):
        path = tmp_path / str(calls) / "audit.jsonl"
        path.parent.mkdir()
        path.write_bytes(whole + b'{"decision":"al')
        done = run_python(KILLED_AT_CALL, path, calls, check=False)
        assert done.returncode in (0, 42), done.stderr
        finished = done.returncode == 0
        with AuditLog.open(path):
            pass
        report = verify(path)
        assert report.ok, f"killed at call {calls}: {report}"
        assert report.lines == 4
        assert report.repairs == 1
        aside = list(path.parent.glob("*.torn-*"))
        assert [file.read_bytes() for file in aside] == [b'{"decision":"al']
        assert aside[0].name == lines_of(path)[-1]["step"]["file"]
        if finished:
            break
    assert finished
    assert calls > 5


def test_the_name_of_what_was_put_aside_never_leads_out_of_the_directory(tmp_path, whole):
    """The repair line is hashed, and the name in it is made here: it has the log's own name and a time."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(whole + b"x")
    with AuditLog.open(path):
        pass
    step = lines_of(path)[-1]["step"]
    assert step["file"].startswith("audit.jsonl.torn-")
    assert "/" not in step["file"]
    assert torn.repair_step(path, path.read_bytes().splitlines()[-1]) is None


@pytest.mark.parametrize("name", ["../elsewhere", "audit.jsonl.torn-/../../elsewhere", "elsewhere"])
def test_a_repair_line_that_names_another_place_moves_nothing_there(tmp_path, name):
    path = tmp_path / "log" / "audit.jsonl"
    path.parent.mkdir()
    (path.parent / "audit.jsonl.torn-").mkdir()
    pending = path.with_name("audit.jsonl.torn-pending")
    pending.write_bytes(b"half")
    step = {"type": REPAIR, "file": name, "bytes": 4, "sha256": hashlib.sha256(b"half").hexdigest()}
    line, _ = seal(maintenance(step), 0, GENESIS)
    told = torn.repair_step(path, line.rstrip(b"\n"))
    assert told is not None
    assert told["file"].startswith("audit.jsonl.torn-2")
    assert pending.read_bytes() == b"half"
