"""`bottle verify`: what an agent would try, tried in a living bottle, and what the bottle's own audit says of it."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

from bottle.commands.exec import run
from bottle.errors import LaunchFailed
from bottle.manifest.store import home_root
from bottle.preflight import shown
from bottle.state import State
from bottle.terminal import PYTHON
from bottle.workspace.copy_in import Kept

LINES = 37
"""How many attempts there are at least: an agent that could stop the battery early would pass by that."""


def verify(arguments: argparse.Namespace) -> int:
    """Run the battery; returns 0 when every attempt failed, 1 when one didn't."""
    from opsexec.audit import verify as verify_log

    state = State(home_root().resolve())
    script = files("bottle.sidecars").joinpath("battery.py").read_text("utf-8")
    kept = Kept()
    argv = (PYTHON, "-I", "-S", "-c", script)
    status = asyncio.run(run(arguments.identity, argv, kept, _nothing()))
    tried = [json.loads(line) for line in bytes(kept.data).decode("utf-8", "replace").splitlines() if line[:1] == "{"]
    if status != 0 or len(tried) < LINES:
        raise LaunchFailed(
            f"the battery didn't run to its end in {arguments.identity} (status {status}, {len(tried)} attempts)",
            hint=f"it needs {PYTHON} in the bottle",
        )
    log = verify_log(state.directory(arguments.identity) / "audit.jsonl")
    whole = log.problem is None
    held = whole and all(each["held"] is True for each in tried)
    if arguments.json:
        found: dict[str, Any] = {"identity": arguments.identity, "held": held, "attempts": tried, "audit": whole}
        print(json.dumps(found))
        return 0 if held else 1
    for each in tried:
        print(
            f"{'held' if each['held'] is True else 'OPEN':<5} {each['id']:<5} {each['tried']:<42} {shown(each['came'])}"
        )
    print(f"{'held' if whole else 'OPEN':<5} {'LG3':<5} {'the audit is whole':<42} {shown(str(log.problem or log))}")
    print(f"{sum(each['held'] is True for each in tried) + whole} of {len(tried) + 1} held")
    return 0 if held else 1


async def _nothing() -> AsyncIterator[bytes]:
    """Give no stdin."""
    for each in list[bytes]():
        yield each
