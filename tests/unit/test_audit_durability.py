from __future__ import annotations

import errno
import os
import threading
import time

import pytest

from opsexec.audit import AuditLog, durability, verify
from opsexec.errors import AuditUnavailable
from tests.unit.audit_lines import an_allow


@pytest.fixture
def syncs(monkeypatch, tmp_path):
    """Every fdatasync made of this test's own files: its time. The real one runs.

    Logs that other tests have left open put their last lines on disk meanwhile, by threads of this process.
    """
    made: list[float] = []
    real = os.fdatasync

    def noted(fd):
        real(fd)
        if os.readlink(f"/proc/self/fd/{fd}").startswith(f"{tmp_path}/"):
            made.append(time.monotonic())

    monkeypatch.setattr(os, "fdatasync", noted)
    return made


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        pause.wait(0.005)


def test_always_puts_each_line_on_disk_before_append_returns(tmp_path, syncs):
    with AuditLog.open(tmp_path / "audit.jsonl", fsync="always") as log:
        for number in range(1, 6):
            log.append(an_allow())
            assert len(syncs) == number


def test_group_puts_many_lines_on_disk_with_few_syncs_without_being_asked(tmp_path, syncs):
    with AuditLog.open(tmp_path / "audit.jsonl", fsync="group") as log:
        begun = time.monotonic()
        for _ in range(500):
            log.append(an_allow())
        took = time.monotonic() - begun
        wait_until(lambda: syncs and log._durability._synced == 500)
        assert len(syncs) <= 2 + took / durability.GROUP_INTERVAL_S


def test_close_puts_the_last_lines_on_disk_at_once(tmp_path, syncs):
    log = AuditLog.open(tmp_path / "audit.jsonl", fsync="group")
    log.append(an_allow())
    log.close()
    assert len(syncs) == 1
    assert log._durability._thread is not None
    assert not log._durability._thread.is_alive()


def test_never_leaves_the_disk_to_the_kernel(tmp_path, syncs):
    with AuditLog.open(tmp_path / "audit.jsonl", fsync="never") as log:
        log.append(an_allow())
    assert syncs == []


@pytest.mark.anyio
@pytest.mark.parametrize("policy", ["group", "always", "never"])
async def test_a_barrier_returns_once_all_lines_before_it_are_on_disk(tmp_path, syncs, policy):
    with AuditLog.open(tmp_path / "audit.jsonl", fsync=policy) as log:
        log.append(an_allow())
        log.append(an_allow())
        await log.barrier()
        assert syncs
        made = len(syncs)
        await log.barrier()
        assert len(syncs) == made


@pytest.mark.anyio
async def test_a_disk_that_failed_to_take_a_line_is_not_trusted_again(tmp_path, monkeypatch):
    def fake_fdatasync(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path, fsync="group")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fake_fdatasync)
        log.append(an_allow())
        wait_until(lambda: log._durability.failure is not None)
    with pytest.raises(AuditUnavailable, match="can't be put on disk"):
        log.append(an_allow())
    with pytest.raises(AuditUnavailable, match="can't be put on disk"):
        await log.barrier()
    with pytest.raises(AuditUnavailable, match="can't be put on disk"):
        log.close()
    with AuditLog.open(path) as again:
        again.append(an_allow())
    assert verify(path).lines == 2
