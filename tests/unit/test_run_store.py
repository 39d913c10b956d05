"""Detached runs on disk: what is written down stays so, whatever becomes of the process that attended a run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from agent.run_store import RunRecord, RunStatus, RunStore
from opsexec.audit import AuditLog
from opsexec.audit_heads.lines import with_outcome

RECORD = RunRecord(
    run="0123456789abcdef", mark="m", principal="unix:a", listener="unix:/s", step={}, begun=1.0, request="r"
)


def test_a_runner_that_does_not_go_holds_up_nobody(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    os.close(store.create(RECORD))
    with subprocess.Popen(["sleep", "60"]) as stopped:
        try:
            stopped.send_signal(signal.SIGSTOP)
            store._runners[RECORD.run] = stopped
            begun = time.monotonic()
            store.settle(RECORD.run, RunStatus(status=0))
            assert time.monotonic() - begun < 30
            assert store.is_settled(RECORD.run)
        finally:
            stopped.kill()
    assert store.status(RECORD.run) == RunStatus(status=0)


def test_an_outcome_is_found_also_when_the_clock_was_put_back_since_the_run_began(tmp_path: Path) -> None:
    """Else the next agent would record it a second time."""
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path, max_bytes=400) as log:  # a line or two a segment
        for run in ("first", "second"):
            log.append({"host": "h", "principal": "unix:a", "run": run, "outcome": {"exit_code": 0}})
    files = sorted(tmp_path.glob("audit.jsonl*"))
    assert len(files) > 1
    now = time.time()
    for file in files:
        os.utime(file, (now - 86400, now - 86400))
    both = {"first", "second"}
    assert with_outcome(path, both, now - 3600) == {"second"}  # in the segment that is still written to
    assert with_outcome(path, both, now + 365 * 86400) == both
