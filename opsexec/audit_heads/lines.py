"""The records of runs, from every segment of a log."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from opsexec.audit.record import MAX_DEPTH, AuditBroken, is_plain
from opsexec.audit.segment import closed_segments


def of_run(log: Path, run: str) -> Iterator[dict[str, Any]]:
    """Yield the records of runs whose id begins so, oldest first; raises OSError, AuditBroken.

    A last line that isn't whole yet is passed over.
    """
    needle = b'"run":"' + run.encode("utf-8", "replace")
    for file in [*(path for _, path in closed_segments(log)), log]:
        with file.open("rb") as stream:
            for raw in stream:
                if needle in raw and raw.endswith(b"\n"):
                    record = _record(raw)
                    if record is None:
                        text = f"the audit log {file} has a line that is no record"
                        raise AuditBroken(text, hint=f"see `opsexec audit verify {log}`")
                    if str(record.get("run", "")).startswith(run):
                        yield record


def with_outcome(log: Path, runs: Collection[str], since: float) -> set[str]:
    """Return which of these runs have an outcome in the log, in lines that are whole; raises OSError.

    `since`: closed segments that are older (Unix seconds) aren't looked at, unless that is yet to come: the clock was
    put back, and their times say nothing.
    """
    found: set[str] = set()
    if not runs:
        return found
    for file in [*(path for _, path in closed_segments(log)), log]:
        if file != log and file.stat().st_mtime < since <= time.time():
            continue
        with file.open("rb") as stream:
            for raw in stream:
                if b'"outcome":{' in raw and (record := _record(raw)) is not None and str(record.get("run")) in runs:
                    found.add(str(record["run"]))
    return found


def _record(raw: bytes) -> dict[str, Any] | None:
    """Return the record that a line holds, None where it holds none, or not all of it."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and is_plain((record,), MAX_DEPTH + 1) else None
