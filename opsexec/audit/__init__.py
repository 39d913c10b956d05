"""The audit log: hash-chained lines, appended before anyone acts on what they allow.

Read `record` for what a line is, `log` for how one is appended, `verify` for how the chain is checked.
"""

from __future__ import annotations

from opsexec.audit.log import AuditLog, default_path
from opsexec.audit.null import NullAudit
from opsexec.audit.record import AuditBroken, AuditEntry, BadRecord
from opsexec.audit.tail import tail
from opsexec.audit.verify import Problem, VerifyReport, verify

__all__ = [
    "AuditBroken",
    "AuditEntry",
    "AuditLog",
    "BadRecord",
    "NullAudit",
    "Problem",
    "VerifyReport",
    "default_path",
    "tail",
    "verify",
]
