"""Reading the last lines of a log, and those still to come, across rotations."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec

from opsexec.audit.record import MAX_DEPTH, UNREADABLE, AuditBroken, is_plain, parse
from opsexec.audit.segment import closed_name, first_seq, is_active, lines_backwards, snapshot
from opsexec.errors import AuditUnavailable

POLL_S = 0.1
_CHUNK = 1 << 18
_TRIES = 50


def tail(path: str | Path, n: int = 10, follow: bool = False) -> Generator[dict[str, Any]]:
    """Yield the last `n` records, oldest first; with `follow` go on with each new one, about 0.1 s after it.

    A last line that isn't whole yet is left for later. Lines aren't checked against the chain: `verify` does
    that. Raises AuditUnavailable when the log can't be read, AuditBroken at a line that isn't JSON.
    """
    path = Path(path).absolute()
    try:
        yield from _tail(path, n, follow)
    except OSError as error:
        raise AuditUnavailable(f"the audit log {path} can't be read: {error.strerror}") from error


def _tail(path: Path, n: int, follow: bool) -> Generator[dict[str, Any]]:
    taken = snapshot(path)
    fd = taken.active
    try:
        lines = _last_lines(fd, taken.size, n)
        offset, last_seq = _end(fd, taken.size)
        for _, file in reversed(taken.closed):
            if len(lines) >= n:
                break
            try:
                with file.open("rb") as stream:
                    size = os.fstat(stream.fileno()).st_size
                    lines = _last_lines(stream.fileno(), size, n - len(lines)) + lines
            except FileNotFoundError:
                break  # retention has just removed it, and all before it
        for line in lines:
            yield _decode(line, path)
        if follow:
            while True:
                while chunk := _whole_lines(fd, offset, path):
                    offset += len(chunk)
                    for line in chunk[:-1].split(b"\n"):
                        record = _decode(line, path)
                        chained = parse(line)
                        last_seq = last_seq if chained is None else chained.seq
                        yield record
                if is_active(path, fd):
                    time.sleep(POLL_S)
                elif not _whole_lines(fd, offset, path):  # closed, so nothing more can come
                    os.close(fd)
                    fd = -1
                    fd = _open_next(path, last_seq + 1)
                    offset = 0
    finally:
        if fd >= 0:
            os.close(fd)


def _last_lines(fd: int, size: int, n: int) -> list[bytes]:
    found: list[bytes] = []
    if n > 0:
        for _, raw in lines_backwards(fd, size):
            if raw.endswith(b"\n"):
                found.append(raw[:-1])
                if len(found) == n:
                    break
    return found[::-1]


def _end(fd: int, size: int) -> tuple[int, int]:
    """Return where the last whole line ends, and its sequence number (-1: there is none)."""
    for start, raw in lines_backwards(fd, size):
        line = parse(raw[:-1]) if raw.endswith(b"\n") else None
        if line is not None:
            return start + len(raw), line.seq
    return 0, -1


def _whole_lines(fd: int, offset: int, path: Path) -> bytes:
    """Return whole lines from `offset` on: about 256 KiB, or one line if that is longer, or nothing."""
    size = os.fstat(fd).st_size
    if size < offset:
        raise AuditBroken(f"the audit log {path} was cut while it was read", hint=f"see `opsexec audit verify {path}`")
    length = _CHUNK
    while True:
        data = os.pread(fd, length, offset)
        end = data.rfind(b"\n") + 1
        if end or len(data) < length:
            return data[:end]
        length *= 2


def _open_next(path: Path, seq: int) -> int:
    """Open the segment that begins with line `seq`, wherever rotation has moved it by now."""
    for _ in range(_TRIES):
        for file in (closed_name(path, seq), path):
            try:
                fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if first_seq(fd) == seq:
                return fd
            os.close(fd)
    raise AuditBroken(
        f"line {seq} of the audit log {path} was removed before it could be read", hint="keep more segments"
    )


def _decode(line: bytes, path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except UNREADABLE as error:
        raise AuditBroken(
            f"the audit log {path} has a line that is not JSON", hint=f"see `opsexec audit verify {path}`"
        ) from error
    if not is_plain((record,), MAX_DEPTH + 1):
        text = (
            f"the audit log {path} has a line that it didn't write: nested over {MAX_DEPTH} deep, or with odd numbers"
        )
        raise AuditBroken(text, hint=f"see `opsexec audit verify {path}`")
    return record
