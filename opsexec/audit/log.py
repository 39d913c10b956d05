"""`AuditLog`: appends lines to the chain, safely beside other processes that append to the same file."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from opsexec.audit import torn
from opsexec.audit.durability import Durability, Policy
from opsexec.audit.record import GENESIS, AuditBroken, AuditEntry, maintenance, plain, seal
from opsexec.audit.rotation import rotate
from opsexec.audit.segment import (
    HELD_WAIT_S,
    LockHeld,
    check_safe,
    closed_segments,
    find_head,
    lock,
    open_active,
    write_all,
)
from opsexec.errors import AuditUnavailable
from opsexec.state_home import state_home

MAX_SEGMENT_BYTES = 64 << 20
KEEP_SEGMENTS = 32
_UNKNOWN = -1


def default_path() -> Path:
    """Return `$OPSEXEC_AUDIT`, else `opsexec/audit.jsonl` in the XDG state directory (`~/.local/state`)."""
    named = os.environ.get("OPSEXEC_AUDIT")
    if named:
        return Path(named)
    return state_home() / "opsexec" / "audit.jsonl"


class AuditLog:
    """One hash-chained log, open for appending; use `AuditLog.open`.

    Any number of processes may have the same log open: each append holds the file's lock, and takes up what
    others have appended or rotated since. Threads may share one AuditLog; a forked child opens its own.
    """

    def __init__(self, path: Path, fd: int, *, fsync: Policy, max_bytes: int, keep: int | None) -> None:
        self.path = path
        self._name = os.fspath(path)
        self._know(fd)
        self._durability = Durability(fsync, fd)
        self._max_bytes = max_bytes
        self._keep = keep
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._closed = False
        self._next_seq = 0
        self._prev = GENESIS
        self._end = _UNKNOWN
        self._held = False
        """Whether another process kept the lock when it was last waited for."""

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        fsync: Policy = "group",
        max_bytes: int = MAX_SEGMENT_BYTES,
        keep: int | None = KEEP_SEGMENTS,
    ) -> AuditLog:
        """Open or make the log at `path`; a torn last line is put aside and the chain says so.

        `fsync`: under "group" putting a line on disk begins at most 100 ms after it is written, and at close;
        "always" has it there before `append` returns; "never" leaves it to the kernel. Under each a line
        survives the end of this process at once. A segment is closed before it passes `max_bytes`; `keep` of
        the closed ones stay (None: all). Raises AuditUnavailable when the log can't be written, AuditBroken
        when its end was tampered with.
        """
        if max_bytes < 1 or (keep is not None and keep < 0):
            raise ValueError("max_bytes must be at least 1 and keep at least 0")
        path = Path(path).absolute()
        try:
            fd = open_active(path)
        except OSError as error:
            raise _unavailable(path, "can't be opened", error) from error
        log = cls(path, fd, fsync=fsync, max_bytes=max_bytes, keep=keep)
        try:
            check_safe(fd, path)
            with log._mutex:
                log._lock()
                log._unlock()
        except BaseException:  # whatever it was: nobody else holds the file
            log._closed = True
            os.close(log._fd)
            raise
        return log

    @property
    def head(self) -> AuditEntry | None:
        """The last line this log knows of, None in an empty chain; kept elsewhere it proves the log's end."""
        return AuditEntry(self._next_seq - 1, self._prev) if self._next_seq else None

    def append(self, record: Mapping[str, Any]) -> AuditEntry:
        """Append one record and return where it landed; it survives this process's end when this returns.

        `record` has fields of the audit record only, as plain JSON data; `seq`, `ts`, `prev` and `hash` are
        added here. Raises BadRecord when it isn't that, AuditUnavailable when it can't be written: then
        nothing of it is in the log, except after a failed fdatasync, where nobody can say.
        """
        fields = plain(record)
        self._check_process()
        with self._mutex:
            self._check_usable()
            if not self._lock_unchanged():
                self._lock()
            try:
                entry = self._append_locked(fields)
            finally:
                self._unlock()
            try:
                self._durability.wrote()
            except OSError as error:
                raise _unavailable(self.path, "can't be put on disk", error) from error
        return entry

    async def barrier(self) -> None:
        """Return once every line appended before is on disk, whatever the policy; raises AuditUnavailable."""
        from anyio import to_thread

        self._check_process()
        with self._mutex:
            self._check_usable()
        try:
            try:
                await to_thread.run_sync(self._durability.flush)
            except RuntimeError:  # there is no thread to be had
                self._durability.flush()
        except OSError as error:
            raise _unavailable(self.path, "can't be put on disk", error) from error

    def close(self) -> None:
        """Put the last lines on disk (not under "never") and let go of the log; raises AuditUnavailable."""
        if os.getpid() != self._pid:
            return  # a forked child: the lines, and the last word on them, are the parent's
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                self._durability.close()
            except OSError as error:
                raise _unavailable(self.path, "can't be put on disk", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            # A lock belongs to the open file, which a fork shares: both processes would hold it at once.
            raise AuditUnavailable(
                f"the audit log {self.path} was opened before this process was forked",
                hint="open it again in the child",
            )

    def _check_usable(self) -> None:
        if self._closed:
            raise AuditUnavailable(f"the audit log {self.path} is closed")
        if self._durability.failure is not None:
            raise _unavailable(self.path, "can't be put on disk", self._durability.failure)

    def _unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _lock_unchanged(self) -> bool:
        """Lock the log if that takes no waiting; True when it is as we left it, else `_lock` finds out what to do.

        A lock is taken once however often it is asked for (flock(2)), so one that was had here is none too many there.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held = False
            status = os.stat(self._name)
        except OSError:
            return False
        return status.st_size == self._end and status.st_ino == self._inode and status.st_dev == self._device

    def _lock(self) -> None:
        """Lock the file that is the log now, and know its end. Raises AuditUnavailable, unlocked."""
        while True:
            try:
                lock(self._fd, self.path, fcntl.LOCK_EX, HELD_WAIT_S if self._held else None)
            except LockHeld:
                self._held = True
                raise
            self._held = False
            try:
                if self._is_current():
                    return
                self._unlock()
                self._reopen()
            except OSError as error:
                self._unlock()
                raise _unavailable(self.path, "can't be read", error) from error
            except BaseException:  # whatever it was: nobody else lets the lock go
                self._unlock()
                raise

    def _is_current(self) -> bool:
        try:
            status = os.stat(self._name)
        except FileNotFoundError:
            raise AuditBroken(
                f"the audit log {self.path} was removed while it was open",
                hint="find out who did, then start again",
            ) from None
        if status.st_ino != self._inode or status.st_dev != self._device:
            return False
        if status.st_size != self._end:
            if status.st_size < self._end:
                raise AuditBroken(
                    f"the audit log {self.path} was cut while open: {self._end} bytes, now {status.st_size}",
                    hint="find out who did; rotate with opsexec's own rotation only",
                )
            self._take_up(status.st_size)
        return True

    def _reopen(self) -> None:
        """Go over to the file that another process's rotation has put in place."""
        fd = open_active(self.path)
        try:
            check_safe(fd, self.path)
        except BaseException:  # as in open
            os.close(fd)
            raise
        self._move_to(fd)
        self._end = _UNKNOWN

    def _move_to(self, fd: int) -> None:
        self._durability.move(fd)
        self._know(fd)

    def _know(self, fd: int) -> None:
        status = os.fstat(fd)
        self._fd, self._inode, self._device = fd, status.st_ino, status.st_dev

    def _take_up(self, size: int) -> None:
        """Read the end of the log under the lock: after opening, or when someone else has appended."""
        head = find_head(self._fd, size, self.path)
        opening = self._end == _UNKNOWN
        if head.next_seq < self._next_seq:
            raise AuditBroken(
                f"the audit log {self.path} was replaced: it ends at line {head.next_seq - 1}, "
                f"but line {self._next_seq - 1} was written",
                hint="find out who did, then start again",
            )
        if head.next_seq == 0 and opening:
            _refuse_a_second_beginning(self.path)
        if head.end < size:
            torn.set_aside(self.path, self._fd, head.end, size)
        self._next_seq, self._prev, self._end = head.next_seq, head.prev, head.end
        if opening or head.end < size:
            self._record_repair(head.line)

    def _record_repair(self, last_line: bytes) -> None:
        step = torn.repair_step(self.path, last_line)
        if step is not None:
            self._put(*seal(maintenance(step), self._next_seq, self._prev))
            os.fdatasync(self._fd)
            torn.name_pending(self.path, step["file"])

    def _append_locked(self, fields: dict[str, Any]) -> AuditEntry:
        line, digest = seal(fields, self._next_seq, self._prev)
        if self._end and self._end + len(line) > self._max_bytes:
            self._rotate()
            line, digest = seal(fields, self._next_seq, self._prev)
        return self._put(line, digest)

    def _put(self, line: bytes, digest: str) -> AuditEntry:
        """Write one line; when that fails, cut off what got in, so that the chain stays whole."""
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                write_all(self._fd, line[written:])
        except OSError as error:
            end, self._end = self._end, _UNKNOWN
            try:
                os.ftruncate(self._fd, end)
            except OSError as cut:  # what got in is a torn tail then: the next append or open puts it aside
                raise _unavailable(self.path, "can't be written, nor cut back", cut) from error
            self._end = end
            raise _unavailable(self.path, "can't be written", error) from error
        entry = AuditEntry(self._next_seq, digest)
        self._next_seq += 1
        self._prev = digest
        self._end += len(line)
        return entry

    def _rotate(self) -> None:
        try:
            opened = rotate(self.path, self._fd, self._next_seq, self._prev, self._keep)
        except OSError as error:
            raise _unavailable(self.path, "can't be rotated", error) from error
        self._move_to(opened.fd)
        self._next_seq, self._prev, self._end = opened.next_seq, opened.prev, opened.end


def _refuse_a_second_beginning(path: Path) -> None:
    closed = closed_segments(path)
    if closed:
        raise AuditBroken(
            f"the audit log {path} is empty, but {closed[-1][1].name} holds lines before it",
            hint=f"see `opsexec audit verify {path}`; to begin a new chain move the older segments aside",
        )


def _unavailable(path: Path, what: str, error: OSError) -> AuditUnavailable:
    if error.errno == errno.ELOOP:
        return AuditUnavailable(f"the audit log {path} is a symbolic link", hint="name the file it leads to")
    hint = "no audit, no run: make it writable, or name another file in OPSEXEC_AUDIT"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "no audit, no run: make room on its disk"
    return AuditUnavailable(f"the audit log {path} {what}: {error.strerror}", hint=hint)
