"""One copy between this machine and a host: by rsync over the open connection, by a tar stream where that can't be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from opsexec.errors import StepFailed, StepTimeout
from opsexec.hosts.carrying import TarNeeded

if TYPE_CHECKING:
    from opsexec.hosts.bridge import OpenFar
    from opsexec.hosts.port import SyncPlan, SyncResult


async def copy_tree(plan: SyncPlan, host: str, open_far: OpenFar, turns: asyncio.Semaphore | None = None) -> SyncResult:
    """Copy, when its turn comes.

    Raises StepTimeout, StepFailed with the reason, ConnectionLost, CapabilityDenied and what opening a wire raises.
    """
    from opsexec.hosts.rsync import sync_by_rsync

    _require_source(plan, host)
    try:
        async with (
            asyncio.timeout(plan.timeout_s) as deadline,
            turns or contextlib.nullcontext(),
            _with_room(plan, host) as plan,
        ):
            try:
                return await sync_by_rsync(plan, host, open_far)
            except TarNeeded:
                from opsexec.hosts.tar_sync import sync_by_tar

                return await sync_by_tar(plan, host, open_far)
    except TimeoutError as error:
        if not deadline.expired():
            raise
        text = f"the copy took over {plan.timeout_s:g} s; what was copied so far stays"
        raise StepTimeout(text, host=host, hint="raise timeout_s") from error


def _require_source(plan: SyncPlan, host: str) -> None:
    """A push of nothing is refused before the host is asked for anything."""
    if plan.direction == "push":
        try:
            os.lstat(plan.local)
        except OSError as error:
            text = f"can't read {plan.local} on this machine: {os.strerror(error.errno or 0)}"
            raise StepFailed(text, host=host, hint="src is a path of the machine that pushes") from error


@contextlib.asynccontextmanager
async def _with_room(plan: SyncPlan, host: str) -> AsyncIterator[SyncPlan]:
    """Let a pull make the directories above its destination: each of many hosts may have one of its own.

    A check makes them elsewhere, for its own time.
    """
    above, name = os.path.split(plan.local.rstrip("/"))
    if plan.direction == "push" or not above or os.path.lexists(above):
        yield plan
    elif plan.check:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="opsexec-check-") as empty:
            elsewhere = os.path.join(empty, name) + "/" * plan.local.endswith("/")
            yield msgspec.structs.replace(plan, local=elsewhere)
    else:
        try:
            os.makedirs(above, exist_ok=True)
        except OSError as error:
            text = f"can't make {above} on this machine: {os.strerror(error.errno or 0)}"
            raise StepFailed(text, host=host, hint="dest is a path of the machine that pulls") from error
        yield plan
