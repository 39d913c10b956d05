from __future__ import annotations

import enum
import hashlib
import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.audit import AuditLog, BadRecord, NullAudit
from opsexec.audit.record import FIELDS, MAX_DEPTH, computed_hash, maintenance_step, plain, seal
from opsexec.errors import AuditUnavailable
from opsexec.secret import Secret
from tests.unit.audit_lines import an_allow

JSON_MEMBERS = {*FIELDS, "seq", "ts", "prev", "hash"}

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
records = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(sorted(FIELDS - {"decision"}), values)
    | {"decision": st.sampled_from(["allow", "deny", None])},
)


def without_hash(line):
    return re.sub(rb'"hash":"[0-9a-f]{64}",', b"", line.removesuffix(b"\n"), count=1)


def test_a_line_has_every_member_of_the_audit_record_and_null_where_one_does_not_apply(tmp_path):
    with AuditLog.open(tmp_path / "audit.jsonl") as log:
        log.append({"host": "web1", "run": "1", "outcome": {"exit_code": 0}})
    line = json.loads((tmp_path / "audit.jsonl").read_bytes())
    assert set(line) == JSON_MEMBERS
    assert line["outcome"] == {"exit_code": 0}
    assert line["decision"] is None
    assert line["step"] is None


def test_the_time_is_rfc_3339_in_utc_with_microseconds(tmp_path):
    before = datetime.now(UTC)
    with AuditLog.open(tmp_path / "audit.jsonl") as log:
        log.append(an_allow())
    stamp = json.loads((tmp_path / "audit.jsonl").read_bytes())["ts"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", stamp)
    assert before.timestamp() - 1e-6 <= datetime.fromisoformat(stamp).timestamp() <= datetime.now(UTC).timestamp()


@given(records, st.integers(0, 2**53 - 1))
def test_the_hash_covers_the_canonical_form_as_another_json_writer_makes_it(record, seq):
    line, digest = seal(plain(record), seq, "f" * 64)
    read = json.loads(line)
    assert read.pop("hash") == digest
    other_writer = json.dumps(read, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert without_hash(line) == other_writer
    assert hashlib.sha256(other_writer).hexdigest() == digest
    assert line.count(b"\n") == 1


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_the_same_double(number):
    line, _ = seal(plain({"outcome": {"duration_s": number}}), 0, "0" * 64)
    assert json.loads(line)["outcome"]["duration_s"] == number


def test_control_characters_cannot_break_a_line_or_reach_a_terminal_raw():
    line, _ = seal(plain({"host": 'a\nb\r\x1b[2J"}\\\x00'}), 0, "0" * 64)
    assert not re.search(rb"[\x00-\x1f]", line.removesuffix(b"\n"))
    assert json.loads(line)["host"] == 'a\nb\r\x1b[2J"}\\\x00'


class Text(str):
    __slots__ = ()


class Colour(enum.StrEnum):
    RED = "red"


cycle: list[object] = []
cycle.append(cycle)
deep: object = "x"
for _ in range(MAX_DEPTH + 1):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Secret("hunter2"), r"record\.step\.argv\[1\] is a opsexec\.secret\.Secret"),
        (b"bytes", "builtins.bytes"),
        (datetime.now(UTC), "datetime"),
        ({1, 2}, "builtins.set"),
        (Text("x"), "Text"),
        (Colour.RED, "Colour"),
        (float("nan"), "not a finite number"),
        (float("-inf"), "not a finite number"),
        (2**53, "beyond 2"),
        (-(2**53), "beyond 2"),
        ({1: "x"}, "int for a member name"),
        ("\udcff", "lone surrogate"),
        ("x" * (1 << 20), "too long"),
        (cycle, "nested"),
        (deep, "nested"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_what_is_not_plain_json_is_refused_with_its_place_and_nothing_is_written(tmp_path, value, said):
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:
        with pytest.raises(BadRecord, match=said) as caught:
            log.append(an_allow(step={"type": "exec", "argv": ["/bin/true", value]}))
        assert "hunter2" not in str(caught.value) + str(caught.value.hint)
        assert isinstance(caught.value, AuditUnavailable)
        assert path.read_bytes() == b""
        assert log.append(an_allow()).seq == 0


def test_the_deepest_allowed_nesting_is_written():
    value: object = "x"
    for _ in range(MAX_DEPTH):
        value = [value]
    assert b"x" in seal(plain({"step": value}), 0, "0" * 64)[0]


@pytest.mark.parametrize(
    "record",
    [
        {"hsot": "web1"},
        {"seq": 7},
        {"hash": "0" * 64},
        {"decision": "maybe"},
        {"decision": 1},
        {"step": {"type": "audit.rotate", "oldest_seq": 0}},
        {"step": {"type": "audit.repair"}},
        {"host": Secret("hunter2")},
    ],
    ids=repr,
)
def test_fields_that_are_not_the_callers_to_give_are_refused_by_the_log_and_by_no_log_alike(tmp_path, record):
    with AuditLog.open(tmp_path / "audit.jsonl") as log, pytest.raises(BadRecord):
        log.append(record)
    with NullAudit() as null, pytest.raises(BadRecord):
        null.append(record)


@pytest.mark.anyio
async def test_no_audit_takes_what_the_log_takes_and_keeps_nothing():
    null = NullAudit()
    null.append(an_allow())
    await null.barrier()
    null.close()


@pytest.mark.parametrize("decision", [None, "allow", "deny"])
def test_whatever_was_decided_the_hash_is_in_its_place_and_nowhere_else(decision):
    line, digest = seal(plain({"decision": decision}), 0, "f" * 64)
    assert computed_hash(line.removesuffix(b"\n")) == digest
    assert computed_hash(b" " + line.removesuffix(b"\n")) is None


@pytest.mark.parametrize("number", [2**53 - 1, -(2**53) + 1])
def test_the_largest_integers_that_every_reader_keeps_are_taken(number):
    assert plain({"outcome": {"a": (number, [number])}})["outcome"] == {"a": (number, [number])}
    with pytest.raises(BadRecord, match="beyond 2"):
        plain({"outcome": number + (1 if number > 0 else -1)})


@pytest.mark.parametrize(
    ("step", "own"),
    [
        ({"type": "audit.rotate", "oldest_seq": 3}, True),
        ({"type": "audit.repair", "file": "a", "sha256": "b"}, True),
        ({"type": "exec", "argv": [{"type": "audit.rotate"}]}, False),
        ([{"type": "audit.rotate"}], False),
    ],
)
def test_a_line_of_the_logs_own_is_one_by_its_step_alone(step, own):
    line = json.dumps({"step": step}, separators=(",", ":")).encode()
    assert maintenance_step(line) == (step if own else None)


@pytest.mark.parametrize(
    "step",
    [{"type": "audit.rotate"}, {"type": "audit.rotate", "oldest_seq": "3"}, {"type": "audit.repair", "file": "a"},
     {"type": "audit.repair", "sha256": "b"}, {"type": "audit.repair", "file": 1, "sha256": "b"}],
)  # fmt: skip
def test_a_line_of_the_logs_own_has_all_that_it_says(step):
    with pytest.raises(ValueError, match=f"of type {re.escape(step['type'])} without"):
        maintenance_step(json.dumps({"step": step}, separators=(",", ":")).encode())
