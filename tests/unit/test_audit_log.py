from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from opsexec.audit import AuditBroken, AuditLog, default_path, segment, verify
from opsexec.errors import AuditUnavailable
from tests.unit.audit_lines import ROOT, an_allow, run_python, write_log


def test_each_line_names_the_one_before_and_the_first_names_none(tmp_path):
    path = tmp_path / "audit.jsonl"
    entries = write_log(path, 3)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["seq"] for line in lines] == [0, 1, 2]
    assert [line["prev"] for line in lines] == ["0" * 64, lines[0]["hash"], lines[1]["hash"]]
    assert [(entry.seq, entry.hash) for entry in entries] == [(line["seq"], line["hash"]) for line in lines]


def test_a_log_opened_again_goes_on_with_the_same_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 3)
    with AuditLog.open(path) as log:
        assert log.head == verify(path).head
        assert log.append(an_allow()).seq == 3
    assert verify(path).lines == 4


def test_the_log_is_the_owners_alone_and_so_is_each_directory_made_for_it(tmp_path):
    path = tmp_path / "state" / "opsexec" / "audit.jsonl"
    write_log(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_the_default_path_is_the_named_one_else_the_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPSEXEC_AUDIT", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert default_path() == tmp_path / ".local/state/opsexec/audit.jsonl"
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert str(default_path()) == "/var/state/opsexec/audit.jsonl"
    monkeypatch.setenv("OPSEXEC_AUDIT", "/srv/log.jsonl")
    assert str(default_path()) == "/srv/log.jsonl"


def test_a_line_that_append_returned_for_survives_a_kill(tmp_path):
    path = tmp_path / "audit.jsonl"
    script = (
        "import sys; from opsexec.audit import AuditLog; from tests.unit.audit_lines import an_allow\n"
        "log = AuditLog.open(sys.argv[1])\n"
        "while True: print(log.append(an_allow()).seq, flush=True)"
    )
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        said = [int(line) for line in writer.stdout.read().split()]
        writer.stdout.close()
        writer.wait(timeout=10)
        with AuditLog.open(path):
            report = verify(path)
        assert report.ok, str(report)
        assert report.head is not None
        assert not said or report.head.seq >= said[-1]


def test_threads_may_share_one_log(tmp_path):
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path, max_bytes=20_000) as log, ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda number: log.append(an_allow(number)), range(400)))
    assert len({entry.seq for entry in entries}) == 400
    report = verify(path)
    assert report.ok, str(report)
    assert report.lines == 400 + report.rotations


def test_a_closed_log_takes_nothing_more_and_closes_twice(tmp_path):
    log = AuditLog.open(tmp_path / "audit.jsonl")
    log.close()
    log.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        log.append(an_allow())


def test_a_forked_child_must_open_the_log_itself(tmp_path):
    done = run_python(
        "import os, sys; from opsexec.audit import AuditLog; from opsexec.errors import AuditUnavailable\n"
        "log = AuditLog.open(sys.argv[1], fsync='never')\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        log.append({})\n"
        "    except AuditUnavailable as error:\n"
        "        print(error, '|', error.hint, flush=True)\n"
        "    log.close()\n"
        "    os._exit(0)\n"
        "os.wait(); print(log.append({}).seq); log.close()",
        tmp_path / "audit.jsonl",
    )
    assert "before this process was forked | open it again in the child\n0\n" in done.stdout


def test_a_log_that_is_removed_cut_or_replaced_while_open_is_noticed_before_the_next_line(tmp_path):
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:
        log.append(an_allow())
        log.append(an_allow())
        whole = path.read_bytes()

        first_line = whole[: whole.index(b"\n") + 1]
        os.truncate(path, len(first_line))
        with pytest.raises(AuditBroken, match="was cut"):
            log.append(an_allow())
        path.write_bytes(whole)

        aside = path.with_name("aside")
        path.rename(aside)
        with pytest.raises(AuditBroken, match="was removed"):
            log.append(an_allow())

        write_log(path, 1)
        with pytest.raises(AuditBroken, match="was replaced"):
            log.append(an_allow())
        aside.rename(path)
        assert log.append(an_allow()).seq == 2
    assert verify(path).ok


def test_a_last_line_changed_on_disk_stops_the_next_opening(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 2)
    path.write_bytes(path.read_bytes().replace(b'"web1"', b'"evil"'))
    with pytest.raises(AuditBroken, match=r"line 1 .* was changed") as caught:
        AuditLog.open(path)
    assert "audit verify" in str(caught.value.hint)


def test_an_empty_log_with_closed_segments_beside_it_is_not_a_new_beginning(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_log(path, 10, max_bytes=2000)
    path.unlink()
    with pytest.raises(AuditBroken, match="is empty, but"):
        AuditLog.open(path)


def test_a_path_that_cannot_be_a_log_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "audit.jsonl"
    link = tmp_path / "link.jsonl"
    write_log(path, 1)
    link.symlink_to(path)
    with pytest.raises(AuditUnavailable, match="symbolic link"):
        AuditLog.open(link)
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path / "fifo", "/dev/null"):
        with pytest.raises(AuditUnavailable, match="not a regular file"):
            AuditLog.open(other)
    for other in (tmp_path, path / "below" / "a-file"):
        with pytest.raises(AuditUnavailable, match="can't be opened"):
            AuditLog.open(other)
    path.chmod(0o620)
    with pytest.raises(AuditUnavailable, match=r"written by others .*0620"):
        AuditLog.open(path)


def test_a_log_of_another_users_is_refused(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: another user's file")
    path = tmp_path / "audit.jsonl"
    write_log(path, 1)
    before = path.read_bytes()
    os.chown(path, 65534, 65534)
    with pytest.raises(AuditUnavailable, match=r"is another user's \(uid 65534\)"):
        AuditLog.open(path)
    assert path.read_bytes() == before


def test_a_lock_that_another_keeps_is_waited_for_with_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "LOCK_WAIT_S", 0.2)
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log, path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AuditUnavailable, match="another process has held"):
            log.append(an_allow())
        with pytest.raises(AuditUnavailable, match="another process has held"):
            verify(path)
        fcntl.flock(other, fcntl.LOCK_UN)
        assert log.append(an_allow()).seq == 0


def test_a_lock_that_another_keeps_for_ever_is_waited_for_once_and_not_for_each_line(tmp_path, monkeypatch):
    """An agent does nothing else meanwhile: whoever it serves would take it for gone."""
    monkeypatch.setattr(segment, "LOCK_WAIT_S", 1.0)
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log, path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        begun = time.monotonic()
        for _ in range(20):
            with pytest.raises(AuditUnavailable, match="another process has held"):
                log.append(an_allow())
        assert time.monotonic() - begun < 10
        fcntl.flock(other, fcntl.LOCK_UN)
        log.append(an_allow())
        fcntl.flock(other, fcntl.LOCK_EX)
        begun = time.monotonic()
        with pytest.raises(AuditUnavailable, match="another process has held"):
            log.append(an_allow())
        assert time.monotonic() - begun >= 1.0  # whoever has let it go since is waited for again
        fcntl.flock(other, fcntl.LOCK_UN)
        assert log.append(an_allow()).seq == 1


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"keep": -1}])
def test_limits_that_mean_nothing_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="at least"):
        AuditLog.open(tmp_path / "audit.jsonl", **options)
