"""opsexec: typed, capability-gated steps on local and SSH hosts.

The names below are the public ones. Each is loaded when it is first used, so `import opsexec` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsexec.audit import AuditLog, NullAudit
    from opsexec.capability import Capability, CapabilitySet, Requirement
    from opsexec.connect import connect
    from opsexec.errors import (
        AddressesTaken,
        AuditUnavailable,
        BadCapability,
        BadInventory,
        BadRunbook,
        BadStep,
        CapabilityDenied,
        ConnectionLost,
        ConsentDenied,
        HostKeyRejected,
        HostUnreachable,
        HostUnsuitable,
        LimitExceeded,
        MadeDifferently,
        OpsError,
        PathNotFound,
        PrivilegeDenied,
        ProgramNotFound,
        ProtocolError,
        RecordingFailed,
        StepFailed,
        StepTimeout,
        UsageError,
    )
    from opsexec.executor import Executor, LogSink, RunOutput, SyncOpts
    from opsexec.inventory import Inventory
    from opsexec.local import LocalExec
    from opsexec.rpc import AgentRpc
    from opsexec.runbook import Runbook
    from opsexec.secret import Secret
    from opsexec.sinks import CollectSink, LineSink
    from opsexec.ssh import SshExec
    from opsexec.steps import (
        Exec,
        Facts,
        Link,
        MakeDir,
        MoveFile,
        Observe,
        Pull,
        Push,
        ReadFile,
        RemoveFile,
        ServiceControl,
        ServiceStatus,
        SetMode,
        Shell,
        Stat,
        Step,
        Tty,
        WriteFile,
    )

_HOME = {
    "opsexec.audit": "AuditLog NullAudit",
    "opsexec.capability": "Capability CapabilitySet Requirement",
    "opsexec.connect": "connect",
    "opsexec.errors": "AddressesTaken AuditUnavailable BadCapability BadInventory BadRunbook BadStep CapabilityDenied "
    "ConnectionLost ConsentDenied HostKeyRejected HostUnreachable HostUnsuitable LimitExceeded MadeDifferently "
    "OpsError PathNotFound PrivilegeDenied ProgramNotFound ProtocolError RecordingFailed StepFailed StepTimeout "
    "UsageError",
    "opsexec.executor": "Executor LogSink RunOutput SyncOpts",
    "opsexec.inventory": "Inventory",
    "opsexec.local": "LocalExec",
    "opsexec.rpc": "AgentRpc",
    "opsexec.runbook": "Runbook",
    "opsexec.secret": "Secret",
    "opsexec.sinks": "CollectSink LineSink",
    "opsexec.ssh": "SshExec",
    "opsexec.steps": "Exec Facts Link MakeDir MoveFile Observe Pull Push ReadFile RemoveFile ServiceControl "
    "ServiceStatus SetMode Shell Stat Step Tty WriteFile",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}
__version__ = "0.1.0"
__all__ = [
    "AddressesTaken", "AgentRpc", "AuditLog", "AuditUnavailable", "BadCapability", "BadInventory", "BadRunbook",
    "BadStep", "Capability", "CapabilityDenied", "CapabilitySet", "CollectSink", "ConnectionLost",
    "ConsentDenied", "Exec", "Executor", "Facts", "HostKeyRejected", "HostUnreachable", "HostUnsuitable",
    "Inventory", "LimitExceeded", "LineSink", "Link", "LocalExec", "LogSink", "MadeDifferently", "MakeDir",
    "MoveFile", "NullAudit", "Observe", "OpsError", "PathNotFound", "PrivilegeDenied", "ProgramNotFound",
    "ProtocolError", "Pull", "Push", "ReadFile", "RecordingFailed", "RemoveFile", "Requirement", "RunOutput",
    "Runbook", "Secret", "ServiceControl", "ServiceStatus", "SetMode", "Shell", "SshExec", "Stat", "Step",
    "StepFailed", "StepTimeout", "SyncOpts", "Tty", "UsageError", "WriteFile", "connect",
]  # fmt: skip


def __getattr__(name: str) -> object:
    module = _MODULE.get(name)
    if module is None:
        raise AttributeError(f"module 'opsexec' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})
