"""Runbooks: steps over many hosts, in gated tiers, with a journal that a broken run is resumed from.

The names below are the public ones. Each is loaded when it is first used: bottles read YAML and run none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsexec.runbook.engine import Engine, execute
    from opsexec.runbook.grants import least_capabilities
    from opsexec.runbook.journal import Journal, NullJournal
    from opsexec.runbook.model import Assert, Retry, Runbook, RunbookStep, Template, Tier
    from opsexec.runbook.options import Approval, ApprovalMissing, RunOptions
    from opsexec.runbook.progress import PlainProgress, SilentProgress
    from opsexec.runbook.report import Report
    from opsexec.runbook.showing import progress_for

_HOME = {
    "engine": "Engine execute",
    "grants": "least_capabilities",
    "journal": "Journal NullJournal",
    "model": "Assert Retry Runbook RunbookStep Template Tier",
    "options": "Approval ApprovalMissing RunOptions",
    "progress": "PlainProgress SilentProgress",
    "report": "Report",
    "showing": "progress_for",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}

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


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
    globals()[name] = value
    return value
