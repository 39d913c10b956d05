from __future__ import annotations

import os
import subprocess
import sys

import pytest

from opsexec.audit import verify
from tests.conftest import require
from tests.unit.audit_lines import ROOT, run_python, write_log

# Fills the log until it is refused, then makes room as told and goes on; prints what happened.
FILL = """
import os, resource, sys
from pathlib import Path
from opsexec.audit import AuditLog, verify
from opsexec.errors import AuditUnavailable
from tests.unit.audit_lines import an_allow

path, how = Path(sys.argv[1]), sys.argv[2]
log = AuditLog.open(path, max_bytes=int(sys.argv[3]), keep=None)
if how == "rlimit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
else:
    (path.parent / "ballast").write_bytes(bytes(100_000))
accepted = 0
try:
    while True:
        log.append(an_allow(accepted))
        accepted += 1
except AuditUnavailable as error:
    print(error, "|", error.hint)
report = verify(path)
assert report.ok, str(report)
assert report.lines == accepted + report.rotations, (report.lines, accepted)
try:
    log.append(an_allow())
except AuditUnavailable:
    print("still refused")
if how == "rlimit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    (path.parent / "ballast").unlink()
log.append(an_allow())
log.close()
report = verify(path)
assert report.ok and report.lines == accepted + 1 + report.rotations, str(report)
print("went on", accepted, report.rotations)
"""


def test_a_file_that_may_not_grow_refuses_the_line_and_the_chain_stays_whole(tmp_path):
    said = run_python(FILL, tmp_path / "audit.jsonl", "rlimit", 64 << 20).stdout
    assert "can't be written: File too large | no audit, no run: make room on its disk" in said
    assert "still refused" in said
    assert "went on" in said


@pytest.fixture
def on_a_small_disk(tmp_path):
    """Runs a script with a log on a 256 KiB tmpfs that nobody else sees."""
    require(os.geteuid() == 0, "mounting a tmpfs needs root")
    unshare = require("unshare", "unshare makes the mount namespace")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [unshare, "-m", "sh", "-c", 'mount -t tmpfs -o size=256k tmpfs "$0" && exec "$@"', str(disk)]
    probe = subprocess.run([*mount, "true"], capture_output=True, text=True)
    require(probe.returncode == 0, f"a tmpfs can't be mounted here: {probe.stderr.strip()}")

    def run(script, *arguments):
        command = [*mount, sys.executable, "-c", script, str(disk / "audit.jsonl"), *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("limit", [64 << 20, 20_000], ids=["one segment", "rotating"])
def test_a_full_disk_refuses_the_line_and_the_chain_goes_on_once_there_is_room(on_a_small_disk, limit):
    said = on_a_small_disk(FILL, "tmpfs", limit)
    assert "No space left on device | no audit, no run: make room on its disk" in said
    assert "still refused" in said
    assert "went on" in said


REPAIR_WITHOUT_ROOM = """
import os, sys
from pathlib import Path
from opsexec.audit import AuditLog, verify
from opsexec.errors import AuditUnavailable
from tests.unit.audit_lines import write_log

path = Path(sys.argv[1])
write_log(path, 3)
with path.open("ab") as stream:
    stream.write(b'{"decision":"al' + b"x" * 20_000)
ballast = path.parent / "ballast"
with ballast.open("wb", buffering=0) as stream:
    try:
        while True:
            stream.write(bytes(4096))
    except OSError:
        pass
before = path.read_bytes()
try:
    AuditLog.open(path)
except AuditUnavailable as error:
    print(error)
assert path.read_bytes() == before
ballast.unlink()
with AuditLog.open(path):
    pass
report = verify(path)
assert report.ok and report.repairs == 1 and report.lines == 4, str(report)
"""


def test_a_torn_tail_that_there_is_no_room_to_keep_stays_where_it_is(on_a_small_disk):
    said = on_a_small_disk(REPAIR_WITHOUT_ROOM)
    assert "No space left on device" in said


def test_a_directory_that_takes_no_new_file_refuses_the_rotation_and_loses_nothing(tmp_path):
    user = require("setpriv", "setpriv drops root's power over directories") if os.geteuid() == 0 else ""
    path = tmp_path / "log" / "audit.jsonl"
    write_log(path, 2)
    script = (
        "import os, sys; from opsexec.audit import AuditLog; from opsexec.errors import AuditUnavailable\n"
        "log = AuditLog.open(sys.argv[1], max_bytes=1500)\n"
        "os.chmod(os.path.dirname(sys.argv[1]), 0o500)\n"
        "try:\n"
        "    while True: log.append({})\n"
        "except AuditUnavailable as error: print(error)\n"
        "os.chmod(os.path.dirname(sys.argv[1]), 0o700)\n"
        "print(log.append({}).seq); log.close()"
    )
    command = [sys.executable, "-c", script, str(path)]
    if user:
        command = [user, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert "can't be rotated: Permission denied" in done.stdout
    report = verify(path)
    assert report.ok, str(report)
    assert report.rotations == 1
