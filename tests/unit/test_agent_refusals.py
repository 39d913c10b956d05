"""Refusals in the audit: whoever floods it costs it a few lines, and nobody's first refusal is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.refusals import COUNT, KINDS, LINES, PRINCIPALS, WINDOW_S, BoundedRefusals
from opsexec.audit import AuditLog, verify
from opsexec.errors import AuditUnavailable
from opsexec.testing import MemoryAudit


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refusal(who: str | None = "unix:mallory", kind: str = "exec", why: str = "no grant") -> dict[str, Any]:
    return {"host": "h", "listener": "unix:/s", "principal": who, "step": {"type": kind}, "decision": "deny",
            "layer": "agent", "reason": why, "run": None}  # fmt: skip


def counted(records: Sequence[Mapping[str, Any]]) -> int:
    """How many refusals the lines tell of, one by one or counted."""
    own: int = sum(each["step"]["type"] != COUNT for each in records)
    return own + sum(int(each["reason"].split()[0]) for each in records if each["step"]["type"] == COUNT)


def test_a_few_refusals_have_a_line_each() -> None:
    audit = MemoryAudit()
    bounded = BoundedRefusals(audit, "h")
    for _ in range(LINES):
        bounded.append(refusal())
    bounded.flush()
    assert [each["step"]["type"] for each in audit.records] == ["exec"] * LINES


def test_a_flood_costs_a_few_lines_that_say_how_large_it_was() -> None:
    audit = MemoryAudit()
    bounded = BoundedRefusals(audit, "h", Clock())
    for _ in range(100_000):
        bounded.append(refusal())
    bounded.flush()
    assert counted(audit.records) == 100_000
    assert len(audit.records) < LINES + 20


def test_killed_in_a_flood_less_than_half_of_the_count_is_lost() -> None:
    audit = MemoryAudit()
    bounded = BoundedRefusals(audit, "h", Clock())
    for done in range(1, 5000):
        bounded.append(refusal())
        assert counted(audit.records) > done // 2 - 1


def test_the_first_refusal_of_each_kind_and_of_each_principal_has_its_line() -> None:
    audit = MemoryAudit()
    bounded = BoundedRefusals(audit, "h", Clock())
    for _ in range(1000):
        bounded.append(refusal())
    bounded.append(refusal(kind="tty", why="the first of its kind"))
    bounded.append(refusal(who="unix:eve", why="the first of hers"))
    reasons = [each["reason"] for each in audit.records]
    assert "the first of its kind" in reasons
    assert "the first of hers" in reasons


def test_each_window_begins_anew() -> None:
    audit, clock = MemoryAudit(), Clock()
    bounded = BoundedRefusals(audit, "h", clock)
    for _ in range(100):
        bounded.append(refusal())
    clock.now += WINDOW_S
    bounded.append(refusal(why="in the next window"))
    assert audit.records[-1]["reason"] == "in the next window"
    assert counted(audit.records) == 101
    clock.now += WINDOW_S
    bounded.flush(everything=False)
    assert counted(audit.records) == 101


def test_what_is_allowed_is_never_counted() -> None:
    audit = MemoryAudit()
    bounded = BoundedRefusals(audit, "h", Clock())
    for _ in range(1000):
        bounded.append(refusal() | {"decision": "allow"})
    assert len(audit.records) == 1000


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["exec", "tty"]), st.floats(0, 40)), max_size=300
    )
)
def test_no_refusal_is_lost_whoever_asks_and_whenever(asked: list[tuple[str | None, str, float]]) -> None:
    audit, clock = MemoryAudit(), Clock()
    bounded = BoundedRefusals(audit, "h", clock)
    for who, kind, later in asked:
        clock.now += later
        bounded.append(refusal(who, kind))
    bounded.flush()
    assert counted(audit.records) == len(asked)


def test_many_names_fill_neither_the_memory_nor_go_uncounted() -> None:
    audit = MemoryAudit()
    bounded = BoundedRefusals(audit, "h", Clock())
    for at in range(PRINCIPALS * 3):
        bounded.append(refusal(f"unix:{at}", kind=f"kind-{at}"))
    assert len(bounded._tallies) <= PRINCIPALS + 1
    bounded.flush()
    assert counted(audit.records) == PRINCIPALS * 3
    assert len(audit.records) < PRINCIPALS + LINES + KINDS + 20
    of_several = [each for each in audit.records if each["step"]["type"] == COUNT]
    assert {each["principal"] for each in of_several} == {None}


class FullDisk:
    """An audit whose disk is full, from a moment on."""

    def __init__(self) -> None:
        self.full = False

    def append(self, record: Mapping[str, Any]) -> object:
        if self.full:
            raise AuditUnavailable("full")
        return None


def test_without_an_audit_a_count_waits_and_the_refusal_says_so() -> None:
    disk = FullDisk()
    bounded = BoundedRefusals(disk, "h", Clock())
    for _ in range(LINES + 5):
        bounded.append(refusal())
    disk.full = True
    for _ in range(LINES - 6):
        bounded.append(refusal())  # counted: nobody asks the disk
    with pytest.raises(AuditUnavailable):
        bounded.append(refusal())
    with pytest.raises(AuditUnavailable):
        bounded.flush()
    disk.full = False
    bounded.flush()


def test_counted_lines_are_lines_of_the_chain(tmp_path: Path) -> None:
    with AuditLog.open(tmp_path / "audit.jsonl", fsync="never") as log:
        bounded = BoundedRefusals(log, "h")
        for _ in range(500):
            bounded.append(refusal())
        bounded.flush()
    assert verify(tmp_path / "audit.jsonl").ok
