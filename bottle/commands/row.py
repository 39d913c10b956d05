"""One bottle as `--json` has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bottle.errors import NoSuchBottle

if TYPE_CHECKING:
    from bottle.state import State


def row(state: State, identity: str, alive: bool) -> dict[str, Any]:
    """Return what there is to say of one bottle, for programs. `directory`: where its audit, log and home are kept."""
    directory = str(state.directory(identity))
    try:
        found = state.read(identity)
    except NoSuchBottle as error:
        unknown = {"identity": identity, "state": "unreadable", "agent": "", "started_at": 0.0, "why": str(error)}
        return {**unknown, "directory": directory}
    how = "running" if alive else "left behind" if found.phase == "launching" else "stopped"
    return {
        "identity": identity,
        "state": how,
        "agent": found.agent,
        "backend": found.backend,
        "started_at": found.started_at,
        "host": found.host.get("url"),
        "directory": directory,
    }
