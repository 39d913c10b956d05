"""Terminals that were open when an agent died: the next agent says so in the audit, once for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.asker import LAYER

if TYPE_CHECKING:
    from agent.desk import Desk


def settle_cut(desk: Desk) -> int:
    """Record the end of each; returns how many there were. Raises AuditUnavailable.

    Their process trees ended with that agent. Their recordings stay as they are: they hold up to their last link.
    """
    cut = desk.terminals.recordings.unfinished()
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
    return len(cut)
