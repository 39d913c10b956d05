"""The journal of a run: JSON lines that survive a crash, so that `--resume` goes on after the last good step.

Every record is one write(2) as it happens: a crash of this process loses nothing. fdatasync follows at the
end of each batch and of the run. A power loss may so take the last records; their steps are then run again,
never skipped.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsexec.errors import OpsError, UsageError
from opsexec.runbook.masking import Masker
from opsexec.runbook.resume import JournalState, read_journal
from opsexec.state_home import state_home

LOOK_S = 0.25
"""Seconds that a journal may be locked by somebody who only looks whether its run goes on."""

_RUN = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}\Z")


class JournalUnavailable(OpsError):
    """The journal can't be written: a run that could not be resumed is not begun, or not gone on with."""

    code = "journal"
    exit_code = 3


def new_run_id() -> str:
    """Return a new run's id: UTC time and six random hex digits; sorts by time."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)


def journal_dir(state_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return where journals stand: `state_dir`, else `${XDG_STATE_HOME:-~/.local/state}/opsexec/runs`."""
    if state_dir is not None:
        return Path(state_dir)
    return state_home() / "opsexec" / "runs"


_STRUCTURE = frozenset(
    [
        "version", "run", "file", "digest", "hosts", "check", "limit", "tags",
        "host", "step", "status", "changed", "exit_code", "duration_s", "totals",
    ]
)  # fmt: skip
"""Fields that a resume reads and no secret can reach: a short secret, masked in them, would break the journal."""


class Journal:
    """Writes one run's journal. `start` makes a new file, `reopen` goes on with one; both lock it."""

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._directory = journal_dir(directory)
        self._fd = -1
        self.masker = Masker()

    def path(self, run: str) -> Path:
        """Return the file of a run; raises UsageError for text that is no run id."""
        if not _RUN.match(run):
            raise UsageError(
                f"{run[:40]!r} is not a run's id", hint="like 20250131-235959-0a1b2c, as the run printed it"
            )
        return self._directory / f"{run}.jsonl"

    def start(self, run: str, header: Mapping[str, Any]) -> None:
        """Begin a journal; raises JournalUnavailable."""
        path = self.path(run)
        try:
            for directory in (*reversed(self._directory.parents), self._directory):
                directory.mkdir(exist_ok=True, mode=0o700)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unavailable(path, error) from error
        self._lock(path)
        try:
            self.record("run", version=1, run=run, **header)
        except JournalUnavailable:
            path.unlink(missing_ok=True)  # a run that never began leaves no journal without a beginning
            raise

    def reopen(self, run: str) -> JournalState:
        """Open a run's journal to go on with it, without the line that a crash tore; return what it says.

        Raises UsageError when there is none, another process has it, or others may write it; BadJournal when
        it was damaged elsewhere.
        """
        path = self.path(run)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise UsageError(f"there is no run {run}", hint=f"runs are kept in {self._directory}") from error
        except OSError as error:
            raise _unavailable(path, error) from error
        self._require_own(path)
        self._lock(path)
        data = b""
        while block := os.pread(self._fd, 1 << 20, len(data)):
            data += block
        state = read_journal(data, str(path))
        os.ftruncate(self._fd, state.good_bytes)
        return state

    def _require_own(self, path: Path) -> None:
        """What it says decides which steps are not run again: it must be this user's word, or root's."""
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
            self.close()
            raise UsageError(f"{path} may be written by others", hint="look at it, and start a new run")

    def _lock(self, path: Path) -> None:
        """Take the run's lock, unless another process has it for longer than `opsexec runs list` looks."""
        end = time.monotonic() + LOOK_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if isinstance(error, BlockingIOError) and time.monotonic() < end:
                    time.sleep(LOOK_S / 20)
                    continue
                self.close()
                text = f"run {path.stem} is going on in another process"
                raise UsageError(text, hint=f"wait for it, or end it (fuser {path})") from error

    def record(self, kind: str, /, **fields: Any) -> None:
        """Write one record at once; raises JournalUnavailable when it can't (a full disk, a journal that is gone)."""
        shown = {name: value if name in _STRUCTURE else self.masker.data(value) for name, value in fields.items()}
        entry = {"kind": kind, "ts": round(time.time(), 3), **shown}
        line = (json.dumps(entry, separators=(",", ":"), allow_nan=False) + "\n").encode()
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                # A full disk. Taken back, so that no later record stands behind a torn one.
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            names = os.fstat(self._fd).st_nlink
        except OSError as error:
            raise _unavailable(self._directory, error) from error
        if not names:
            text = f"{self._directory}: the run's journal was removed or replaced while the run goes on"
            raise JournalUnavailable(text, hint="it can't be resumed: look at what was done, then start a new run")

    def sync(self) -> None:
        """Wait until all records are on the disk."""
        if self._fd >= 0:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                raise _unavailable(self._directory, error) from error

    def close(self) -> None:
        """Close the file and with it let go of the lock."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class NullJournal(Journal):
    """Keeps nothing: such a run can't be resumed."""

    def start(self, run: str, header: Mapping[str, Any]) -> None:
        """Begin nothing."""

    def record(self, kind: str, /, **fields: Any) -> None:
        """Keep nothing."""

    def reopen(self, run: str) -> JournalState:
        """There is nothing to go on with."""
        raise UsageError("a run without a journal can't be resumed", hint="run with a journal")


def _unavailable(path: Path, error: OSError) -> JournalUnavailable:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "free space" if full else "make it writable, or name another directory in XDG_STATE_HOME"
    return JournalUnavailable(f"{path}: the journal can't be written ({error.strerror})", hint=hint)
