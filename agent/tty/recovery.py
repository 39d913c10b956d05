"""Terminals that were open when an agent died: the next agent says so in the audit, once for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.asker import LAYER
from opsexec.errors import AuditUnavailable

if TYPE_CHECKING:
    from agent.desk import Desk


AGAIN_S = 5.0


def settle_cut(desk: Desk, cut: Sequence[str]) -> None:
    """Record the end of each. Raises AuditUnavailable; who was recorded by then isn't a second time.

    Their process trees ended with that agent. Their recordings stay as they are: they hold up to their last link.
    """
    for run in cut:
        found = desk.terminals.recordings.find(run)
        desk.audit.append(
            {
                "host": desk.name,
                "listener": "agent",
                "principal": None if found is None else found.principal,
                "step": {"type": "tty.cut", "bytes": 0 if found is None else found.size},
                "layer": LAYER,
                "reason": "the agent ended while this terminal was open",
                "run": run,
                "outcome": {"exit_code": None, "signal": None, "error": "lost"},
            }
        )
        desk.terminals.recordings.finished(run)


async def settle_cut_later(desk: Desk, cut: Sequence[str]) -> None:
    """Record the end of each that isn't recorded yet, once there is an audit again."""
    while left := sorted({*cut} & {*desk.terminals.recordings.unfinished()}):
        await asyncio.sleep(AGAIN_S)
        with contextlib.suppress(AuditUnavailable):
            settle_cut(desk, left)
