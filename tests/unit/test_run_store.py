"""Detached runs on disk: what is written down stays so, whatever becomes of the process that attended a run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from agent.run_store import RunRecord, RunStatus, RunStore

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
