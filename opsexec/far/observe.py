"""One sample of this machine: load, memory, disks. What can't be told is null."""

from __future__ import annotations

import os

from opsexec.far.facts import disk_facts, fact, memory_facts, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def observe(args: list[bytes]) -> list[bytes]:
    """[comma-separated names] -> [json object: each name, and `ts`, seconds since 1970]."""
    import json
    import time

    names = [name for name in args[0].decode("ascii", "replace").split(",") if name]
    sample: dict[str, Any] = {"ts": round(time.time(), 3)}
    for name in names:
        sample[name] = fact(READERS, name)
    return [json.dumps(sample).encode()]


def load() -> dict[str, Any]:
    """Load averages over 1, 5 and 15 minutes, and processes: runnable and in all, as proc(5) has them."""
    words = (read_text("/proc/loadavg") or "").split()
    runnable = total = None
    if len(words) >= 4 and "/" in words[3]:
        runnable, total = (int(part) if part.isdigit() else None for part in words[3].split("/", 1))
    try:
        one, five, fifteen = os.getloadavg()
    except OSError:  # getloadavg(3) tells nothing here: that is the answer
        return {"load1": None, "load5": None, "load15": None, "runnable": runnable, "processes": total}
    return {"load1": one, "load5": five, "load15": fifteen, "runnable": runnable, "processes": total}


READERS: dict[str, Callable[[], Any]] = {"load": load, "memory": memory_facts, "disks": disk_facts}
