"""An executor over a fake host, with the real admission, handlers and audit records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opsexec.capability import CapabilitySet
from opsexec.host_executor import HostExecutor
from opsexec.testing.host import FakeHost


class MemoryAudit:
    """An audit that keeps its records in a list. `failure`: an error to raise instead of keeping one."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.failure = failure

    def append(self, record: Mapping[str, Any]) -> int:
        """Keep a record; returns its number."""
        if self.failure is not None:
            raise self.failure
        self.records.append(dict(record))
        return len(self.records)


def fake_executor(
    host: FakeHost | None = None,
    capabilities: CapabilitySet | None = None,
    *,
    audit: MemoryAudit | None = None,
) -> HostExecutor:
    """Return an executor over a fake host; without `capabilities` it may do everything."""
    return HostExecutor(
        host or FakeHost(),
        CapabilitySet.everything() if capabilities is None else capabilities,
        audit or MemoryAudit(),
        principal="unix:tester",
        listener="test",
    )
