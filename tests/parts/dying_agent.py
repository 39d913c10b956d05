"""`python -m tests.parts.dying_agent KIND STAGE --config FILE`: an agent that kills itself (-9) at one point."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import agent.detached
import agent.events.hub
import agent.run_store
import agent.runs
import agent.schedule.keeper
import agent.schedule.store
import agent.schedule.turn
import opsexec.hosts.watchdog
import opsexec.recorder
from agent.cli import main


def die() -> None:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, when: Callable[..., bool] = lambda *args, **kw: True) -> None:
    """Die when this is called, for the first time that `when` says so."""
    real = getattr(owner, name)

    def called(*args: Any, **kw: Any) -> Any:
        if when(*args, **kw):
            die()
        return real(*args, **kw)

    setattr(owner, name, called)


def after(owner: Any, name: str, when: Callable[..., bool] = lambda *args, **kw: True) -> None:
    """Die once this was done, for the first time that `when` says so."""
    real = getattr(owner, name)

    def called(*args: Any, **kw: Any) -> Any:
        answer = real(*args, **kw)
        if when(*args, **kw):
            die()
        return answer

    setattr(owner, name, called)


def allows(audit: Any, record: dict[str, Any]) -> bool:
    """Whether a line lets a step begin."""
    return record.get("decision") == "allow" and bool(record.get("requires"))


def ends(audit: Any, record: dict[str, Any]) -> bool:
    """Whether a line says how a run ended."""
    return bool(record.get("outcome"))


AUDIT = agent.events.hub.TellingAudit
STORE = agent.run_store.RunStore

ATTENDED: dict[str, Callable[[], None]] = {
    "before its allow line": lambda: before(AUDIT, "append", allows),
    "after its allow line": lambda: after(AUDIT, "append", allows),
    "spawned, not marked": lambda: before(opsexec.hosts.watchdog.Watchdog, "began", lambda _, slot, run, pid: pid > 0),
    "output under way": lambda: after(opsexec.recorder.Recorder, "feed"),
    "ended, before its outcome line": lambda: before(AUDIT, "append", ends),
    "outcome line, before the answer": lambda: after(AUDIT, "append", ends),
}
"""Of a run whose caller waits."""

DETACHED: dict[str, Callable[[], None]] = {
    "before its allow line": lambda: before(AUDIT, "append", allows),
    "after its allow line": lambda: before(STORE, "create"),
    "written down, not spawned": lambda: after(STORE, "create"),
    "spawned, not told what to run": lambda: before(agent.run_store, "_give"),
    "started, not answered": lambda: after(STORE, "start"),
    "output under way": lambda: before(agent.runs, "_pass_on"),
    "ended, before its outcome line": lambda: before(agent.detached.Detached, "_outcome"),
    "outcome line, not noted": lambda: before(STORE, "settle"),
    "noted, before the answer": lambda: after(STORE, "settle"),
}
"""Of a run that lives on."""

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
    kind, stage = sys.argv.pop(1), sys.argv.pop(1)
    {"schedule": STAGES, "attended": ATTENDED, "detached": DETACHED}[kind][stage]()
    sys.exit(main())
