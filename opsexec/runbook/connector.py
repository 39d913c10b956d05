"""From an inventory's host to an open executor: the one place where runbooks meet the real transports."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import AuditSink, Executor
    from opsexec.inventory import InventoryHost
    from opsexec.runbook.options import Connect


def connector(audit: AuditSink | None = None) -> Connect:
    """Return a Connect that opens hosts as the inventory says; `audit` None = the caller's own audit log."""

    def opened(host: InventoryHost, capabilities: CapabilitySet) -> AbstractAsyncContextManager[Executor]:
        return connect_host(host, capabilities, audit)

    return opened


def connect_host(
    host: InventoryHost, capabilities: CapabilitySet, audit: AuditSink | None = None
) -> AbstractAsyncContextManager[Executor]:
    """Return the executor of one host, as an async context manager."""
    from opsexec.connect import connect

    host_keys: Literal["strict", "accept-new"] = "accept-new" if host.host_keys == "accept-new" else "strict"

    return connect(
        host.url,
        capabilities=capabilities,
        audit=audit,
        name=host.name,
        identity_files=host.identity_files or None,
        known_hosts=host.known_hosts,
        host_keys=host_keys,
        config_files=host.config_files or None,
        jump=host.jump,
    )
