"""Other users of the caller's own machine: nothing of a run is theirs to read, to change or to make up."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import AuditLog
from opsexec.errors import UsageError
from opsexec.runbook.journal import Journal, new_run_id


@pytest.fixture(autouse=True)
def careless() -> Iterator[None]:
    """A user whose umask gives everything away."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_what_is_kept_is_its_owners_alone_whatever_the_umask(tmp_path):
    state = tmp_path / "state"
    journal = Journal(state / "opsexec" / "runs")
    journal.start(new_run_id(), {"digest": "d" * 64})
    journal.close()
    AuditLog.open(state / "other" / "audit" / "audit.jsonl").close()
    made = [state, *state.rglob("*")]
    assert len(made) == 7
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("how", ["writable", "fifo", "someone else's"])
def test_a_journal_that_others_may_write_decides_nothing(tmp_path: Path, how: str):
    run = new_run_id()
    journal = Journal(tmp_path)
    journal.start(run, {"digest": "d" * 64})
    journal.close()
    path = journal.path(run)
    if how == "writable":
        path.chmod(0o620)
    elif how == "fifo":
        path.unlink()
        os.mkfifo(path, 0o600)
    else:
        if os.geteuid() != 0:
            pytest.skip("needs root: it gives a file away")
        os.chown(path, 65534, -1)
    with pytest.raises(UsageError, match="others"):
        Journal(tmp_path).reopen(run)
