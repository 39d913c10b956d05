"""Signed heads of an audit chain: what an agent's host vouches for, kept in a file beside the log.

Read `head` for what is signed, `signing` for how, `check` for how it is found out that a chain isn't what was signed.
"""

from __future__ import annotations

from opsexec.audit_heads.check import HeadsReport, check_heads
from opsexec.audit_heads.head import NAMESPACE, SignedHead, heads_path, read_heads

__all__ = ["NAMESPACE", "HeadsReport", "SignedHead", "check_heads", "heads_path", "read_heads"]
