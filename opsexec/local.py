"""LocalExec: steps on the caller's own machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsexec.default_audit import default_audit
from opsexec.host_executor import HostExecutor
from opsexec.hosts.local import LocalHost
from opsexec.principal import local_principal

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import AuditSink


class LocalExec(HostExecutor):
    """An Executor for this machine. `audit`: None = the user's own log (see `opsexec.audit`)."""

    def __init__(
        self,
        *,
        capabilities: CapabilitySet,
        audit: AuditSink | None = None,
        name: str = "local",
        listener: str = "library",
    ) -> None:
        log = audit or default_audit()
        super().__init__(LocalHost(name), capabilities, log, principal=local_principal(), listener=listener)
