"""SshExec: steps on a host behind sshd. Nothing is opened before the first admitted step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsexec.default_audit import default_audit
from opsexec.host_executor import HostExecutor
from opsexec.hosts.ssh import SshHost
from opsexec.hosts.ssh_login import SshAddress, SshOptions
from opsexec.principal import local_principal

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import AuditSink


class SshExec(HostExecutor):
    """An Executor for `[user@]host[:port]`, a name or an alias of ~/.ssh/config. `audit`: None = the user's own log."""

    def __init__(
        self,
        address: str | SshAddress,
        *,
        capabilities: CapabilitySet,
        audit: AuditSink | None = None,
        name: str | None = None,
        options: SshOptions | None = None,
        listener: str = "library",
    ) -> None:
        where = SshAddress.parse(address) if isinstance(address, str) else address
        host = SshHost(where, options or SshOptions(), name)
        log = audit or default_audit()
        super().__init__(host, capabilities, log, principal=local_principal(), listener=listener)
