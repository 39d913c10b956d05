"""What a crash left after the last good line: put aside, never dropped, and the chain says so.

The bytes go to `<log>.torn-pending`, the log is cut, a line of type audit.repair is appended, and only then
does the file get its name `<log>.torn-<time>`. Killed between any two of these, the next open goes on from
there.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opsexec.audit.record import REPAIR, maintenance_step
from opsexec.audit.segment import create, sync_directory, write_all


def _pending(path: Path) -> Path:
    return path.with_name(f"{path.name}.torn-pending")


def set_aside(path: Path, fd: int, start: int, size: int) -> None:
    """Copy the bytes from `start` to `size` into the pending file and cut the log there. Raises OSError."""
    target = create(_pending(path))
    try:
        write_all(target, os.pread(fd, size - start, start))
        os.fsync(target)
    finally:
        os.close(target)
    sync_directory(path.parent)
    os.ftruncate(fd, start)


def repair_step(path: Path, last_line: bytes) -> dict[str, Any] | None:
    """Return the step to append for what was put aside; None when nothing was, or it is there already."""
    try:
        data = _pending(path).read_bytes()
    except FileNotFoundError:
        return None
    digest = hashlib.sha256(data).hexdigest()
    prefix = f"{path.name}.torn-"
    try:
        last = maintenance_step(last_line) if last_line else None
    except ValueError:  # whoever wrote that: `verify` tells of it
        last = None
    if last is not None and last["type"] == REPAIR and last["sha256"] == digest:
        name: str = last["file"]
        if name.startswith(prefix) and "/" not in name:
            name_pending(path, name)
            return None
    name = f"{prefix}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    return {"type": REPAIR, "file": name, "bytes": len(data), "sha256": digest}


def name_pending(path: Path, name: str) -> None:
    """Give what was put aside the name that the repair line carries. Raises OSError."""
    os.rename(_pending(path), path.with_name(name))
    sync_directory(path.parent)
