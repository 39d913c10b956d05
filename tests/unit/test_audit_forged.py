"""Lines that the log would not have written, each with the hash that it ought to have: told, and never a traceback."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.audit import AuditBroken, AuditLog, tail, verify
from opsexec.audit_heads.lines import of_run, with_outcome
from opsexec.cli import main
from opsexec.cli.records import in_words
from tests.unit.audit_lines import an_allow, write_log

DEEP = b"[" * 100_000 + b"]" * 100_000

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def forged(log: Path, step: bytes, seq: int = 3) -> None:
    """Append a line with this step to a log of three, with the hashes that belong there."""
    *_, last = log.read_bytes().splitlines()
    rest = b'"prev":"%s","run":"0000","seq":%d,"step":%s}' % (json.loads(last)["hash"].encode(), seq, step)
    digest = hashlib.sha256(b'{"decision":null,' + rest).hexdigest().encode()
    with log.open("ab") as file:
        file.write(b'{"decision":null,"hash":"%s",' % digest + rest + b"\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    write_log(path, 3)
    return path


@pytest.mark.parametrize(
    "step",
    [
        b'{"type":"audit.rotate"}',
        b'{"oldest_seq":"0","type":"audit.rotate"}',
        b'{"oldest_seq":null,"type":"audit.rotate"}',
        b'{"type":"audit.repair"}',
        b'{"file":3,"sha256":[],"type":"audit.repair"}',
        b'{"oldest_seq":0,"type":"audit.rotate","x":%b}' % DEEP,
        b'{"type":["audit.rotate"],"type":"audit.rotate"}',
        b'{"type":"audit.rotate","x":"\xff"}',
    ],
)
def test_a_line_that_the_log_would_not_write_about_itself_is_named(log: Path, step: bytes, capsys) -> None:
    forged(log, step)
    problem = verify(log).problem
    assert problem is not None
    assert (problem.line, problem.why) == (4, "bad_json")
    assert main(["audit", "verify", str(log)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_line_nested_without_end_is_named_and_ends_a_tail_in_a_sentence(log: Path) -> None:
    forged(log, DEEP)
    assert not verify(log).ok
    with pytest.raises(AuditBroken):
        list(tail(log))
    with pytest.raises(AuditBroken):
        list(of_run(log, "0000"))


@pytest.mark.parametrize("levels", [40, 300, 950, 5000])
def test_a_line_nested_deeper_than_the_log_writes_is_shown_by_no_command(log: Path, levels: int, capsys) -> None:
    forged(log, b"[" * levels + b"]" * levels)
    for form in ([], ["--json"]):
        assert main(["audit", "show", "0000", str(log), *form]) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert "has a line that is no record" in err


@pytest.mark.parametrize("file", ["../elsewhere", "/tmp/x", "", "audit.jsonl", "audit.jsonl.torn-/x"])
def test_what_a_crash_left_gets_no_name_that_a_forged_repair_gives_it(log: Path, file: str) -> None:
    pending = log.with_name("audit.jsonl.torn-pending")
    pending.write_bytes(b"torn")
    digest = hashlib.sha256(b"torn").hexdigest()
    step = {"bytes": 4, "file": file, "sha256": digest, "type": "audit.repair"}
    forged(log, json.dumps(step, separators=(",", ":")).encode())
    with AuditLog.open(log) as opened:
        opened.append(an_allow())
    assert not pending.exists()
    (aside,) = log.parent.glob("audit.jsonl.torn-2*")
    assert aside.read_bytes() == b"torn"
    assert verify(log).ok


def test_a_last_line_that_is_not_whole_is_passed_over_when_runs_are_looked_for(log: Path) -> None:
    with AuditLog.open(log) as opened:
        opened.append(an_allow(7, decision=None, outcome={"exit_code": 0}))
    whole = log.read_bytes()
    run = an_allow(7)["run"]
    for cut in range(len(whole) - len(whole.splitlines()[-1]), len(whole)):
        log.write_bytes(whole[:cut])
        assert list(of_run(log, run)) == []
        assert len(list(of_run(log, ""))) == 3
        with_outcome(log, {run}, 0.0)
    log.write_bytes(whole)
    assert [record["run"] for record in of_run(log, run)] == [run]
    assert with_outcome(log, {run}, 0.0) == {run}


@given(
    record=st.dictionaries(
        st.sampled_from(["ts", "host", "decision", "step", "principal", "requires", "reason", "run", "outcome"]),
        json_data | st.dictionaries(st.sampled_from(["type", "argv", "duration_s", "stdout_bytes"]), json_data),
    )
)
def test_any_record_can_be_put_in_words(record) -> None:
    assert "\n" not in in_words(record)
