"""Runbooks: steps over many hosts, in gated tiers, with a journal that a broken run is resumed from."""

from __future__ import annotations

from opsexec.runbook.engine import Engine, execute
from opsexec.runbook.grants import least_capabilities
from opsexec.runbook.journal import Journal, NullJournal
from opsexec.runbook.model import Assert, Retry, Runbook, RunbookStep, Template, Tier
from opsexec.runbook.options import Approval, ApprovalMissing, RunOptions
from opsexec.runbook.progress import PlainProgress, SilentProgress, progress_for
from opsexec.runbook.report import Report

__all__ = [
    "Approval",
    "ApprovalMissing",
    "Assert",
    "Engine",
    "Journal",
    "NullJournal",
    "PlainProgress",
    "Report",
    "Retry",
    "RunOptions",
    "Runbook",
    "RunbookStep",
    "SilentProgress",
    "Template",
    "Tier",
    "execute",
    "least_capabilities",
    "progress_for",
]
