"""The files of one log: the active one at its path, closed ones as `<path>.<first seq, 16 digits>`."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from opsexec.audit.record import GENESIS, MAX_LINE_BYTES, AuditBroken, Line, computed_hash, parse
from opsexec.errors import AuditUnavailable

LOCK_WAIT_S = 5.0
HELD_WAIT_S = 0.05
"""The same, while it is known that another keeps it: who waits for each line in turn does nothing else meanwhile."""
# What a crash can leave after the last good line is bounded by what was being written; more is damage of
# another kind.
MAX_TORN_BYTES = 8 * MAX_LINE_BYTES
_BLOCK = 4096
_APPEND = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Head(msgspec.Struct, frozen=True):
    """The last good line of a segment: the next sequence number, its hash, where it ends, and its bytes."""

    next_seq: int
    prev: str
    end: int
    line: bytes


def closed_name(path: Path, first_seq: int) -> Path:
    """Return where the segment beginning with `first_seq` goes once it is closed."""
    return path.with_name(f"{path.name}.{first_seq:016d}")


def closed_segments(path: Path) -> list[tuple[int, Path]]:
    """Return (first sequence number, file) of every closed segment, oldest first."""
    shape = re.compile(re.escape(path.name) + r"\.(\d{16})")
    matches = ((shape.fullmatch(entry.name), entry) for entry in path.parent.iterdir())
    return sorted((int(match[1]), entry) for match, entry in matches if match is not None)


def sync_directory(path: Path) -> None:
    """Put the directory's entries on disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_active(path: Path) -> int:
    """Open the log for appending, made if need be: mode 0600, directories 0700. Raises OSError."""
    while True:
        try:
            return os.open(path, _APPEND)
        except FileNotFoundError:
            for directory in reversed([parent for parent in path.parents if not parent.exists()]):
                directory.mkdir(mode=0o700, exist_ok=True)
        try:
            fd = os.open(path, _APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue  # another process made it in between: open that one
        sync_directory(path.parent)
        return fd


def create(path: Path) -> int:
    """Open a new, empty file for appending, mode 0600, over what a killed try has left. Raises OSError."""
    return os.open(path, _APPEND | os.O_CREAT | os.O_TRUNC, 0o600)


def check_safe(fd: int, path: Path) -> None:
    """Raise AuditUnavailable unless this is a regular file that nobody else may write."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise AuditUnavailable(f"the audit log {path} is not a regular file", hint="name a file in OPSEXEC_AUDIT")
    if status.st_uid not in (0, os.geteuid()):
        raise AuditUnavailable(
            f"the audit log {path} is another user's (uid {status.st_uid})",
            hint="name one of your own in OPSEXEC_AUDIT",
        )
    if status.st_mode & 0o022:
        raise AuditUnavailable(
            f"the audit log {path} may be written by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"after checking it: chmod 0600 {path}",
        )


class LockHeld(AuditUnavailable):
    """Another process keeps the lock."""


def lock(fd: int, path: Path, operation: int, wait_s: float | None = None) -> None:
    """Take the lock, waiting at most `wait_s` seconds, else LOCK_WAIT_S; raises LockHeld when another keeps it."""
    wait_s = LOCK_WAIT_S if wait_s is None else wait_s
    deadline = None
    pause = 0.0002
    while True:
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            now = time.monotonic()
            deadline = deadline or now + wait_s
            if now >= deadline:
                raise LockHeld(
                    f"another process has held the audit log {path} for {LOCK_WAIT_S:g} s",
                    hint=f"see who holds it: fuser {path}",
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.005)
        except OSError as error:
            raise AuditUnavailable(
                f"the audit log {path} can't be locked: {error.strerror}", hint="put it on a local disk"
            ) from error


def write_all(fd: int, data: bytes) -> None:
    """Write all of it. Raises OSError, and then part of it may be in the file."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def is_active(path: Path, fd: int) -> bool:
    """Whether the open file is still the one at the log's path. Raises OSError when nothing is there."""
    return os.path.samestat(os.stat(path), os.fstat(fd))


class Snapshot(msgspec.Struct, frozen=True):
    """The log at one instant: its closed segments, oldest first; the active one, open, and its length."""

    closed: tuple[tuple[int, Path], ...]
    active: int
    size: int


def snapshot(path: Path) -> Snapshot:
    """Return the log between two appends; the caller closes `active`. Raises AuditUnavailable."""
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise AuditUnavailable(
                f"the audit log {path} can't be read: {error.strerror}",
                hint="name the log: its path, or OPSEXEC_AUDIT",
            ) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise AuditUnavailable(f"the audit log {path} is not a regular file", hint="name the log's path")
            lock(fd, path, fcntl.LOCK_SH)
            if is_active(path, fd):
                size = os.fstat(fd).st_size
                # Between the two steps of a rotation the active file has its closed name too.
                closed = tuple(each for each in closed_segments(path) if not is_active(each[1], fd))
                fcntl.flock(fd, fcntl.LOCK_UN)
                return Snapshot(closed, fd, size)
        except BaseException:  # whatever it was: nobody else holds the file
            os.close(fd)
            raise
        os.close(fd)


def first_seq(fd: int) -> int | None:
    """Return the sequence number of the segment's first line, None when that isn't an audit line."""
    data = os.pread(fd, MAX_LINE_BYTES, 0)
    line = parse(data[: data.find(b"\n")]) if b"\n" in data else None
    return None if line is None else line.seq


def find_head(fd: int, size: int, path: Path) -> Head:
    """Return the last good line; what follows it up to `size` is a torn tail.

    Raises AuditBroken when the last line is whole but its hash isn't its own, or when the tail is longer than
    a crash leaves.
    """
    for start, raw in lines_backwards(fd, size):
        line = parse(raw[:-1]) if raw.endswith(b"\n") else None
        if line is not None:
            _check_own_hash(line, raw[:-1], path)
            return Head(line.seq + 1, line.hash, start + len(raw), raw[:-1])
        if size - start > MAX_TORN_BYTES:
            raise AuditBroken(
                f"the audit log {path} ends in more than {MAX_TORN_BYTES} bytes that are no audit lines",
                hint=f"look at it, then move {path} aside to begin a new chain",
            )
    return Head(0, GENESIS, 0, b"")


def _check_own_hash(line: Line, raw: bytes, path: Path) -> None:
    if computed_hash(raw) != line.hash:
        raise AuditBroken(
            f"line {line.seq} of the audit log {path} was changed after it was written",
            hint=f"see `opsexec audit verify {path}`; to begin a new chain move it and its segments aside",
        )


def lines_backwards(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of each line from the last to the first; the very last may lack its newline."""
    position, data, block = size, b"", _BLOCK
    while position or data:
        cut = data.rfind(b"\n", 0, len(data) - 1) if data else -1
        if cut >= 0 or not position:
            yield position + cut + 1, data[cut + 1 :]
            data = data[: cut + 1]
            continue
        if len(data) > MAX_TORN_BYTES:
            yield position, data
            return
        length = min(block, position)
        position -= length
        data = os.pread(fd, length, position) + data
        block = min(block * 4, 1 << 20)
