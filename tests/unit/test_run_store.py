"""Detached runs on disk: what is written down stays so, whatever becomes of the process that attended a run."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from agent.config import parse_config
from agent.detached import Detached
from agent.run_store import RunRecord, RunStatus, RunStore, write_whole
from opsexec.audit import AuditLog
from opsexec.audit_heads.lines import with_outcome
from opsexec.errors import HostUnsuitable
from tests.parts.waiting import eventually

RECORD = RunRecord(
    run="0123456789abcdef", mark="m", principal="unix:a", listener="unix:/s", step={}, begun=1.0, request="r"
)
REPOSITORY = Path(__file__).parents[2]
CONFIG = '[agent]\nlisten = ["unix:/run/a/s"]\nstate_dir = "/var/lib/a"\n'


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


@pytest.mark.anyio
async def test_an_outcome_is_recorded_once_however_often_it_cannot_be_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tmp_path / "runs")
    os.close(store.create(RECORD))
    (store.path(RECORD.run) / "status").write_text("{}")
    note = store.path(RECORD.run) / "settled"
    note.symlink_to(tmp_path / "nowhere" / "settled")
    said = ""

    def tries() -> int:
        nonlocal said
        said += capsys.readouterr().err
        return said.count("can't be seen to yet")

    with AuditLog.open(tmp_path / "audit.jsonl") as log:
        detached = Detached(store, log, "here", parse_config(CONFIG).limits)
        detached.watch(RECORD)
        attending = asyncio.create_task(detached.attend())
        try:
            await eventually(lambda: tries() >= 2, within_s=30, what="it is tried again")
            note.unlink()
            await asyncio.wait_for(detached.ended(RECORD.run), 30)
        finally:
            attending.cancel()
            await asyncio.wait([attending])
        assert store.is_settled(RECORD.run)
        assert log.head is not None
        assert log.head.seq == 0, "one line"


def test_a_run_that_cannot_be_written_down_keeps_no_descriptor(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    before = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(HostUnsuitable, match="can't be written down"):
            store.create(RECORD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path / "runs") == []


def settled_runs(store: RunStore, count: int) -> list[str]:
    runs = [f"{number:016x}" for number in range(count)]
    for number, run in enumerate(runs):
        os.close(store.create(msgspec.structs.replace(RECORD, run=run, begun=float(number))))
        store.settle(run, RunStatus(status=0))
    return runs


def test_a_run_that_was_half_removed_keeps_no_other_from_being_removed(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    runs = settled_runs(store, 4)
    (store.path(runs[2]) / "log").unlink()
    store.prune(1, 1 << 30)
    assert sorted(os.listdir(tmp_path / "runs")) == runs[3:]


def test_who_ran_many_pushes_out_none_of_somebody_elses(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    other = msgspec.structs.replace(RECORD, run="somebody-elses", principal="unix:else", begun=-1.0)
    os.close(store.create(other))
    store.settle(other.run, RunStatus(status=0))
    runs = settled_runs(store, 4)
    store.prune(3, 1 << 30)
    assert sorted(os.listdir(tmp_path / "runs")) == [*runs[2:], "somebody-elses"]


CUT_OFF = """
import os, pathlib, shutil, sys
from agent.run_store import RunStore

def begun(path):
    os.unlink(os.path.join(path, "settled"))
    os._exit(9)

shutil.rmtree = begun
RunStore(pathlib.Path(sys.argv[1])).prune(0, 0)
"""


def test_a_removal_that_is_cut_off_leaves_nothing_that_is_taken_for_a_run(tmp_path: Path) -> None:
    """Else its outcome would be recorded a second time."""
    (run,) = settled_runs(RunStore(tmp_path / "runs"), 1)
    died = subprocess.run([sys.executable, "-c", CUT_OFF, str(tmp_path / "runs")], cwd=REPOSITORY, timeout=60)
    assert died.returncode == 9
    store = RunStore(tmp_path / "runs")
    assert store.records() == []
    store.clear_unwritten()
    assert not store.path(run).exists()


class FakeFullStore(RunStore):
    """A store whose disk may be full."""

    full = True

    def settle(self, run: str, status: RunStatus) -> None:
        """Settle, where there is room."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().settle(run, status)


@pytest.mark.anyio
async def test_an_agent_begins_also_where_there_is_no_room_to_note_that_an_outcome_is_recorded(tmp_path: Path) -> None:
    store = FakeFullStore(tmp_path / "runs")
    os.close(store.create(RECORD))
    write_whole(store.path(RECORD.run) / "status", msgspec.json.encode(RunStatus(status=0)))
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:
        log.append({"host": "h", "principal": "unix:a", "run": RECORD.run, "outcome": {"exit_code": 0}})
        detached = Detached(store, log, "h", parse_config(CONFIG).limits)
        detached.recover(path)
        attending = asyncio.create_task(detached.attend())
        store.full = False
        await eventually(lambda: store.is_settled(RECORD.run), within_s=10, what="it is noted")
        attending.cancel()
        await asyncio.wait([attending])
    assert len(path.read_text().splitlines()) == 1
