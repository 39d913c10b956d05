"""The audit log a process uses when it names none: opened on first need, shared by all its executors."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from typing import Any

from opsexec.audit import AuditLog, default_path


class DefaultAudit:
    """Appends to the user's own log, which is opened with the first record and belongs to this process alone."""

    def __init__(self) -> None:
        self._log: AuditLog | None = None
        self._owner = 0

    def append(self, record: Mapping[str, Any]) -> object:
        """Append a record; raises AuditUnavailable when the log can't be opened or written."""
        if self._log is None or self._owner != os.getpid():
            self._log = AuditLog.open(default_path())
            self._owner = os.getpid()
            atexit.register(self.close)
        return self._log.append(record)

    def close(self) -> None:
        """Put the last lines on disk; called when the process ends. Raises AuditUnavailable when they can't be."""
        log, self._log = self._log, None
        if log is not None and self._owner == os.getpid():
            log.close()


_DEFAULT = DefaultAudit()


def default_audit() -> DefaultAudit:
    """Return this process's default audit log."""
    return _DEFAULT
