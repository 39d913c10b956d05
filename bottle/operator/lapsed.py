"""What a person approved for a bottle that has ended since: an approval ends with its bottle, and a resume says so."""

from __future__ import annotations

from pathlib import Path

from bottle.operator.live import difference, live_policy
from bottle.operator.queue import Queue, QueueUnreadable
from bottle.plan import BottlePlan


def lapsed(directory: Path, plan: BottlePlan) -> list[str]:
    """Return what was in force when the bottle in this directory ended and isn't under this plan, a line each."""
    queue = Queue(directory)
    if not queue.has_policy():
        return []
    try:
        before = queue.policy()
    except QueueUnreadable as error:
        return [f"what was in force when it ended can't be told: {error.message}"]
    gone = [line.removeprefix("+ ") for line in difference(live_policy(plan), before) if line.startswith("+ ")]
    return [f"was in force when it ended, and isn't now: {line}" for line in gone]
