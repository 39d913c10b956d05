"""Closing a full segment and beginning the next; at every instant the path names a whole chain's end.

The next segment is made beside the log, with a line of type audit.rotate in it that carries the chain on and
says from which line on segments are kept. The full one gets its closed name as a second link, then the next
one takes the path in one rename. Killed between any two of these, the log is as before or as after.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from opsexec.audit.record import ROTATE, AuditBroken, maintenance, seal
from opsexec.audit.segment import closed_name, closed_segments, create, first_seq, sync_directory, write_all


class Opened(msgspec.Struct, frozen=True):
    """The new active segment, locked: descriptor, next sequence number, last hash, length in bytes."""

    fd: int
    next_seq: int
    prev: str
    end: int


def rotate(path: Path, fd: int, next_seq: int, prev: str, keep: int | None) -> Opened:
    """Close the segment open as `fd`, whose lock the caller holds, and return the next one, locked.

    Closed segments beyond `keep` are removed, oldest first; the rotate line has said so before. Raises
    OSError, with a whole log at the path, the old one or the next; AuditBroken when the segment's first line
    can't be read or its closed name is taken.
    """
    first = first_seq(fd)
    if first is None:
        raise AuditBroken(
            f"the first line of the audit log {path} is no audit line",
            hint=f"see `opsexec audit verify {path}`",
        )
    closed = closed_name(path, first)
    segments = dict(closed_segments(path))
    if closed.exists() and not os.path.samestat(os.stat(closed), os.fstat(fd)):
        raise AuditBroken(f"{closed.name} exists already beside the audit log", hint="see `opsexec audit verify`")
    segments[first] = closed
    starts = sorted(segments)
    expired = [] if keep is None else starts[: max(0, len(starts) - keep)]
    kept = starts[len(expired) :]
    step = {
        "type": ROTATE,
        "closed": closed.name,
        "last_seq": next_seq - 1,
        "oldest_seq": kept[0] if kept else next_seq,
    }
    line, digest = seal(maintenance(step), next_seq, prev)

    os.fdatasync(fd)
    beginning = path.with_name(f"{path.name}.next")
    new = create(beginning)
    try:
        fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write_all(new, line)
        os.fsync(new)
        if not closed.exists():
            os.link(path, closed)
        os.rename(beginning, path)
        sync_directory(path.parent)
        for start in expired:
            segments[start].unlink()
    except OSError:
        os.close(new)
        beginning.unlink(missing_ok=True)
        raise
    return Opened(new, next_seq + 1, digest, len(line))
