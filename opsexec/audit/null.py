"""`NullAudit`: the audit of a caller who asked for none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from opsexec.audit.record import GENESIS, AuditEntry, plain


class NullAudit:
    """Checks records as the log does and keeps none of them: what passes here passes there."""

    def append(self, record: Mapping[str, Any]) -> AuditEntry:
        """Check the record and forget it; raises BadRecord when a log would refuse it."""
        plain(record)
        return AuditEntry(0, GENESIS)

    async def barrier(self) -> None:
        """Return at once: nothing waits to be written."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
