"""Push and Pull: one plan for the host port; what changed comes back itemised."""

from __future__ import annotations

from opsexec.capability import clean_path
from opsexec.errors import BadStep
from opsexec.far.exclude import Excludes
from opsexec.far.message import as_bytes
from opsexec.handlers.context import Context, Outcome
from opsexec.hosts.port import SyncPlan, SyncResult
from opsexec.steps.sync import Pull, Push, Sync

SHOWN_CHANGES = 1000
"""How many changed entries an answer lists; `changes` counts them all."""


async def handle(step: Sync, context: Context) -> Outcome:
    """Copy a tree, or with `check` say what would be copied."""
    return outcome_of(await context.host.sync(plan_of(step, context)), context)


def outcome_of(result: SyncResult, context: Context) -> Outcome:
    """Return a copy's result as its step's outcome."""
    shown = list(result.changes[:SHOWN_CHANGES])
    count = len(result.changes) if result.count is None else result.count
    return Outcome(
        changed=count > 0,
        diff="\n".join(shown) + "\n" if context.diff and shown else None,
        value={"changes": count, "entries": shown, "method": result.method, "skipped": list(result.skipped)},
    )


def plan_of(step: Sync, context: Context) -> SyncPlan:
    """Return the copy a step stands for; the remote path is normalised, its trailing slash kept (rsync's rule)."""
    if isinstance(step, Push):
        verb, local, remote = "sync.push", step.src, step.dest
    else:
        assert isinstance(step, Pull)
        verb, local, remote = "sync.pull", step.dest, step.src
    clean = clean_path(remote)
    try:
        Excludes(as_bytes(pattern) for pattern in step.excludes)
    except ValueError as error:
        raise BadStep(str(error), host=context.host.name, hint="rsync(1) PATTERN MATCHING RULES") from error
    return SyncPlan(
        run=context.run,
        direction="push" if verb == "sync.push" else "pull",
        local=local,
        remote=clean + "/" if remote.endswith("/") and clean != "/" else clean,
        grants=context.capabilities.path_layers(verb),
        delete=step.delete,
        excludes=step.excludes,
        bandwidth_bytes_s=step.bandwidth_bytes_s,
        check=context.check,
        run_as=step.run_as,
        timeout_s=context.timeout_s,
    )
