"""`bottle audit` shows each kind of record there is, also those that decide nothing."""

from __future__ import annotations

import json
from pathlib import Path

from bottle.commands.audit import line
from opsexec.audit import AuditLog
from tests.parts.attendants import ask, attended, decide


def shown(path: Path) -> list[str]:
    """Each record of a log as a person reads it, without its time."""
    return [line(json.loads(each))[9:] for each in path.read_text().splitlines()]


def test_what_an_agent_asks_for_is_shown_beside_what_was_decided(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path / "bottle")
    with AuditLog.open(tmp_path / "audit.jsonl") as attendant.audit:
        decide(attendant, ask(attendant, "new.test"), approve=False)
    asked, decided = shown(tmp_path / "audit.jsonl")
    assert asked.startswith("note   supervise proposal ")
    assert "new.test" in asked
    assert asked.endswith(": it waits for a decision")
    assert decided.startswith("deny   operator  decision ")


def test_a_record_without_a_decision_a_listener_or_a_reason_is_a_note(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:
        log.append({"host": "worker-00000001", "step": {"type": "exec", "argv": ["/bin/true"]}})
        log.append({"host": "worker-00000001", "outcome": {"exit_code": 0}})
    assert shown(path) == ['note   -         exec argv=["/bin/true"]', "ended  -         run -: exit 0"]
