"""Records to append, and logs to break, for the audit's tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from opsexec.audit import AuditLog

ROOT = Path(__file__).resolve().parents[2]


def an_allow(number=0, **fields):
    return {
        "host": f"web{number}",
        "listener": "cli",
        "principal": "unix:deploy",
        "step": {"type": "exec", "argv": ["/usr/bin/uptime"]},
        "requires": ["exec:/usr/bin/uptime"],
        "decision": "allow",
        "layer": "caller",
        "reason": "granted",
        "run": f"{number:016x}",
        **fields,
    }


def write_log(path, count, **options):
    """Append `count` records and return their entries."""
    with AuditLog.open(path, fsync="never", **options) as log:
        return [log.append(an_allow(number)) for number in range(count)]


def run_python(script, *arguments, check=True):
    """Run a script in a Python of its own, from the repository's root, and return what came of it."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done
