"""Runs one contestant and says what it cost, with everything that it started.

`python supervisor.py SAMPLE_MEMORY ARGV...` prints one JSON line: `wall_s`, `cpu_s`, `peak_rss_mb`,
`peak_pss_mb`, `exit_code`, `stdout`. It is the reaper of all that the contestant leaves behind (workers,
masters of connections), so that their CPU is counted too; what is still alive at the end is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36
_SAMPLE_S = 0.05


def _children() -> dict[int, list[int]]:
    by_parent: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue  # ended between listing and reading
            by_parent.setdefault(int(fields[1]), []).append(int(name))
    return by_parent


def _tree() -> list[int]:
    by_parent, found, pending = _children(), [], [os.getpid()]
    while pending:
        for pid in by_parent.get(pending.pop(), []):
            found.append(pid)
            pending.append(pid)
    return found


def _memory_kb() -> tuple[int, int]:
    rss = pss = 0
    for pid in _tree():
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                for line in file:
                    if line.startswith("Rss:"):
                        rss += int(line.split()[1])
                    elif line.startswith("Pss:"):
                        pss += int(line.split()[1])
        except OSError:
            continue  # ended meanwhile
    return rss, pss


def _end_leftovers() -> None:
    for pid in _tree():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # ended meanwhile
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> None:
    """Run the contestant and report."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sample, argv = sys.argv[1] == "1", sys.argv[2:]
    rss = pss = 0
    start = time.perf_counter()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert child.stdout is not None
    out = bytearray()
    while True:
        ready, _, _ = select.select([child.stdout], [], [], _SAMPLE_S if sample else None)
        if ready:
            block = os.read(child.stdout.fileno(), 1 << 16)
            if not block:
                break
            out += block
        if sample:
            now = _memory_kb()
            rss, pss = max(rss, now[0]), max(pss, now[1])
    exit_code = child.wait()
    wall = time.perf_counter() - start
    _end_leftovers()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_rss_mb": max(rss, used.ru_maxrss) / 1024,
        "peak_pss_mb": pss / 1024,
        "exit_code": exit_code,
        "stdout": out.decode(errors="replace"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
