"""What killed launches left on a container engine, found by its labels: whose it is, and of which home root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from bottle.backends import docker
from bottle.backends.base import Place
from bottle.errors import NoSuchBottle
from bottle.runtime import Runtime
from bottle.state import IDENTITY, State
from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError
from opsexec.steps import ContainerList

WITHIN_S = 60.0
GRANTED = ("container.read:bottle-*", "container.remove:bottle-*", "network.manage:bottle-*")


async def sweep(state: State, say: Callable[[str], None]) -> list[str]:
    """Remove the containers and networks of bottles that don't run, and return whose they were.

    Without an engine there is nothing to be found: that is told where a bottle of this root ran on one. An engine that
    hangs is waited for WITHIN_S seconds in all.
    """
    from opsexec.local import LocalExec

    try:
        async with asyncio.timeout(WITHIN_S), LocalExec(capabilities=CapabilitySet.of(*GRANTED)) as ex:
            found = set()
            carried = {"bottle.root": docker.root_label(str(state.root / "any"))}
            for kind in ("containers", "networks"):
                rows = (await ex.run(ContainerList(labels=carried, names="bottle-*", kind=kind))).value
                found |= {identity_of(row) for row in rows}
            gone = sorted(each for each in found - {""} if not state.alive(each))
            for identity in gone:
                place = Place(str(state.directory(identity)), Runtime("", (), ""), {})
                for step in docker.leftovers(place):
                    await ex.run(step)
            return gone
    except (OpsError, TimeoutError) as error:
        if _any_on_docker(state):
            text = str(error) or f"no answer within {WITHIN_S:g} s"
            say(f"warning: what bottles left on the container engine can't be looked for: {text}")
        return []


def identity_of(row: Mapping[str, Any]) -> str:
    """Return whose a container or network is; "" for one whose label, which anybody may set, names no bottle."""
    named = str(row.get("labels", {}).get("bottle.identity", ""))
    return named if IDENTITY.match(named) else ""


def _any_on_docker(state: State) -> bool:
    for identity in state.identities():
        try:
            if state.read(identity).backend == "docker":
                return True
        except NoSuchBottle:  # what can't be read tells of no engine
            continue
    return False
