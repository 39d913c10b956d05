"""Runbooks of schedules: this host alone, nobody to ask, and nothing of the agent's own environment or files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.schedule.model import FAMILIES
from opsexec.errors import BadRunbook, OpsError, StepFailed
from opsexec.inventory import Inventory, InventoryHost
from opsexec.runbook import NullJournal, Runbook, execute
from opsexec.runbook.model import Assert, Template
from opsexec.secret_source import SecretSource
from opsexec.steps.registry import brief

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import Executor

_READER = ThreadPoolExecutor(1, thread_name_prefix="runbooks")
"""One large runbook takes a second to parse: beside the loop, one after the other as they were asked for."""


async def read_beside(text: str, host: str) -> Runbook:
    """Do what `read_runbook` does, while the agent goes on."""
    return await asyncio.get_running_loop().run_in_executor(_READER, read_runbook, text, host)


def read_runbook(text: str, host: str) -> Runbook:
    """Parse a runbook for this host; raises BadRunbook for one that wants more than a schedule can give.

    A secret would come from the agent's own environment, and a copy from the agent's own files: neither is the
    caller's to give.
    """
    book = Runbook.parse(text, "runbook")
    if book.hosts not in ("all", "local", "localhost", host):
        raise BadRunbook(f"a scheduled runbook runs on {host} alone, not on {book.hosts[:80]!r}", hint="hosts: all")
    if book.tiers:
        raise BadRunbook("a scheduled runbook has no tiers: there is nobody to approve one", hint="leave tiers out")
    for name, value in book.vars.items():
        if isinstance(value, SecretSource):
            text = f"the secret {name} can't be read when nobody is there"
            raise BadRunbook(text, hint="read it in a step, from a file")
    for _, step in book.all_steps():
        action = step.action
        if isinstance(action, Assert):
            continue
        kind = action.kind if isinstance(action, Template) else type(action)
        if kind.family not in FAMILIES:
            raise BadRunbook(f"{step.title}: a {kind.__name__} step can't be scheduled", hint="push before, by hand")
    return book


async def run_runbook(text: str, host: str, opened: Callable[[CapabilitySet], Executor]) -> str:
    """Run a runbook over an executor for this host; returns what it came to, raises StepFailed when it failed."""
    book = replace(await read_beside(text, host), hosts="all")
    inventory = Inventory([InventoryHost(name=host, url="local:")])
    report = await execute(book, inventory, lambda _, capabilities: opened(capabilities), journal=NullJournal())
    steps = [step for each in report.hosts.values() for step in each.steps]
    if report.exit_code == 0:
        return f"{len(steps)} steps of {brief(book.name)} ended well"
    failed = next((step for step in steps if step.status == "failed"), None)
    why = report.stopped or (f"{failed.name}: {failed.error}" if failed is not None else "it could not run")
    error: OpsError = StepFailed(f"the runbook {brief(book.name)}: {why}")
    raise error
