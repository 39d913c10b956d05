"""`python -m tests.parts.dying_agent STAGE --config FILE`: the agent as it is, killed (-9) by itself at one point."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import agent.detached
import agent.run_store
import agent.schedule.keeper
import agent.schedule.store
import agent.schedule.turn
from agent.cli import main


def die() -> None:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    """Die when this is called."""

    def called(*args: Any, **kw: Any) -> None:
        die()

    setattr(owner, name, called)


def after(owner: Any, name: str, when: Callable[..., bool] = lambda *args: True) -> None:
    """Die once this was done, for the first time that `when` says so."""
    real = getattr(owner, name)

    def called(*args: Any, **kw: Any) -> Any:
        answer = real(*args, **kw)
        if when(*args):
            die()
        return answer

    setattr(owner, name, called)


STAGES: dict[str, Callable[[], None]] = {
    "before it is decided": lambda: before(agent.schedule.keeper.Keeper, "_decided"),
    "decided": lambda: after(agent.schedule.store.ScheduleStore, "save", lambda _, kept: bool(kept.turns)),
    "announced": lambda: after(agent.schedule.turn.TurnRun, "_record"),
    "admitted": lambda: before(agent.run_store.RunStore, "create"),
    "written down": lambda: after(agent.run_store.RunStore, "create"),
    "started": lambda: after(agent.run_store.RunStore, "start"),
    "ended": lambda: before(agent.detached.Detached, "_outcome"),
    "settled": lambda: after(agent.run_store.RunStore, "settle"),
    "closing": lambda: after(agent.schedule.turn.TurnRun, "_close"),
}

if __name__ == "__main__":
    STAGES[sys.argv.pop(1)]()
    sys.exit(main())
