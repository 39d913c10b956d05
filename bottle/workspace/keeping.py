"""The launcher's part in a workspace: what it says of the directory first, and what it keeps of it."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from bottle.plan import BottlePlan
from bottle.preflight import shown
from bottle.workspace.copy_in import Looked, look, needs, take_in
from opsexec.capability import CapabilitySet

MAX_TOLD = 20


def looked_at(plan: BottlePlan, state: Path) -> list[str]:
    """Return lines on what the agent would get of a directory, for the summary; raises LaunchFailed for too much.

    `state`: where bottles are kept, which is never copied.
    """
    source = plan.workspace.source
    if source is None:
        return []
    found = asyncio.run(_look(source, state))
    lines = [f"{'copied':<13} {found.count} entries, {found.size / (1 << 20):.1f} MiB, git's own store not counted"]
    lines += [f"{'warning':<13} the agent gets {shown(path)}: {why}" for path, why in found.secrets[:MAX_TOLD]]
    if len(found.secrets) > MAX_TOLD:
        lines.append(f"{'warning':<13} and {len(found.secrets) - MAX_TOLD} more like these")
    return lines


async def _look(source: str, state: Path) -> Looked:
    from opsexec.local import LocalExec

    granted = CapabilitySet.of(f"fs.read:{source}", f"fs.read:{source}/**")
    async with LocalExec(capabilities=granted) as ex:
        return await look(ex, source, str(state))


def kept(plan: BottlePlan, directory: Path) -> BottlePlan:
    """Copy what the agent gets beside its bottle first, and return the plan that takes it from there.

    So what the agent did is told by what it got, whatever has become of the directory since.
    """
    source = plan.workspace.source
    if source is None:
        return plan
    base = asyncio.run(_keep(source, directory))
    return dataclasses.replace(plan, workspace=dataclasses.replace(plan.workspace, source=str(base)))


async def _keep(source: str, directory: Path) -> Path:
    from opsexec.audit import AuditLog
    from opsexec.local import LocalExec

    granted = CapabilitySet.of(*needs(source, str(directory / "base")))
    with AuditLog.open(directory / "audit.jsonl") as audit:
        async with LocalExec(capabilities=granted, audit=audit, name=directory.name) as ex:
            return await take_in(ex, source, directory)
