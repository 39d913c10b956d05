"""How a contestant gets its job (a JSON file, named by its argument) and hands in its result (its last line)."""

from __future__ import annotations

import gc
import json
import resource
import sys
from pathlib import Path
from typing import Any


def job() -> dict[str, Any]:
    """The job of this run."""
    loaded: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return loaded


def report(**fields: Any) -> None:
    """Hand in the result."""
    print(json.dumps(fields), flush=True)


def resident_mb() -> float:
    """Resident memory of this process in MiB, after a garbage collection."""
    gc.collect()
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS line")


def peak_mb() -> float:
    """Highest resident memory of this process so far in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
