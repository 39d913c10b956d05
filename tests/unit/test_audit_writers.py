from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from opsexec.audit import verify
from opsexec.audit.segment import closed_segments
from tests.unit.audit_lines import ROOT

WRITER = """
import sys
from opsexec.audit import AuditLog
from tests.unit.audit_lines import an_allow
path, name, count, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with AuditLog.open(path, max_bytes=limit, keep=None) as log:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        log.append(an_allow(number, principal=name))
"""


@pytest.mark.parametrize("limit", [64 << 20, 20_000], ids=["one segment", "rotating"])
def test_four_processes_appending_at_once_make_one_whole_chain(tmp_path, limit):
    path = tmp_path / "audit.jsonl"
    count = 500
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"unix:{name}", str(count), str(limit)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abcd"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=50)
        assert writer.returncode == 0
    report = verify(path)
    assert report.ok, str(report)
    files = [file for _, file in closed_segments(path)] + [path]
    lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    appended = Counter(line["principal"] for line in lines if line["principal"])
    assert appended == {f"unix:{name}": count for name in "abcd"}
    for name in "abcd":
        mine = [line["run"] for line in lines if line["principal"] == f"unix:{name}"]
        assert mine == sorted(mine), "one writer's lines stand in the order it appended them"
    assert (report.rotations > 0) == (limit == 20_000)
