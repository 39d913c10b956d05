"""What killed launches left on a container engine, here or on another host, found by its labels: whose it is, and of
which home root or which directory for bottles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from bottle.backends import docker
from bottle.backends.base import Place
from bottle.errors import HostUnready, NoSuchBottle
from bottle.hosting import Host, executor, host_from, state_on
from bottle.runtime import Runtime
from bottle.state import IDENTITY, Metadata, State
from bottle.taking_away import gone, patience
from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError, UsageError
from opsexec.executor import Executor
from opsexec.steps import ContainerList
from opsexec.steps.containers import Kind

WITHIN_S = 60.0
KINDS: tuple[Kind, ...] = ("containers", "networks")
GRANTED = ("container.read:bottle-*", "container.remove:bottle-*", "network.manage:bottle-*")


async def sweep(state: State, say: Callable[[str], None]) -> list[str]:
    """Remove the containers and networks of bottles that don't run, and return whose they were.

    Without an engine there is nothing to be found: that is told where a bottle of this root ran on one here. One that
    hangs is waited for WITHIN_S seconds in all.
    """
    from opsexec.local import LocalExec

    try:
        async with asyncio.timeout(WITHIN_S), LocalExec(capabilities=CapabilitySet.of(*GRANTED)) as ex:
            places = {each: str(state.directory(each)) for each in await _found(ex, str(state.root / "any"))}
            return await _taken(ex, {each: place for each, place in places.items() if not state.alive(each)})
    except (OpsError, TimeoutError) as error:
        if any(not each.host for each in _on_docker(state)):
            text = str(error) or f"no answer within {WITHIN_S:g} s"
            say(f"warning: what bottles left on the container engine can't be looked for: {text}")
        return []


async def sweep_there(state: State, url: str) -> list[str]:
    """Remove those of this launcher's bottles that don't run from another host's engine, and return whose they were.

    Others' bottles may be kept in the same directory there, so only what is written down here is taken.
    Raises UsageError where no bottle ran on Docker there, what a step does, and HostUnready after WITHIN_S seconds.
    """
    hosts: dict[Host, dict[str, str]] = {}
    for each in _on_docker(state):
        host = host_from(each.host)
        if host is not None and host.url == url and host.directory:
            hosts.setdefault(host, {})[each.identity] = state_on(host, each.identity)
    if not hosts:
        raise UsageError(f"no bottle of yours ran on Docker on {url}", hint="`bottle list --all` shows where each ran")
    gone = []
    for host, places in hosts.items():
        try:
            async with asyncio.timeout(WITHIN_S), executor(host, CapabilitySet.of(*GRANTED), None, url) as ex:
                found = await _found(ex, state_on(host, "any"))
                ours = {each: places[each] for each in found if each in places and not state.alive(each)}
                gone += await _taken(ex, ours)
        except TimeoutError:
            text = f"its container engine doesn't answer within {WITHIN_S:g} s"
            raise HostUnready(text, host=url, hint="try again") from None
    return sorted(gone)


async def taken_there(metadata: Metadata) -> None:
    """Take all of one bottle away from the engine of another host; nothing is done for one that ran on none there."""
    host = host_from(metadata.host)
    if host is None or not host.directory or metadata.backend != "docker":
        return
    granted = [f"{verb}:bottle-{metadata.identity}-*" for verb in ("container.remove", "network.manage")]
    async with executor(host, CapabilitySet.of(*granted), None, metadata.identity) as ex:
        await _taken(ex, {metadata.identity: state_on(host, metadata.identity)})


async def _found(ex: Executor, any_state: str) -> list[str]:
    """Return the identities of the bottles of a root of which an engine has anything, sorted."""
    carried = {"bottle.root": docker.root_label(any_state)}
    found = set()
    for kind in KINDS:
        rows = (await ex.run(ContainerList(labels=carried, names="bottle-*", kind=kind))).value
        found |= {identity_of(row) for row in rows}
    return sorted(found - {""})


async def _taken(ex: Executor, places: Mapping[str, str]) -> list[str]:
    """Take away all that an engine has of these bottles (identity -> where each is kept); returns whose that was."""
    for place in places.values():
        for step in docker.leftovers(Place(place, Runtime("", (), ""), {})):
            await gone(ex.run, step, patience())
    return list(places)


def identity_of(row: Mapping[str, Any]) -> str:
    """Return whose a container or network is; "" for one whose label, which anybody may set, names no bottle."""
    named = str(row.get("labels", {}).get("bottle.identity", ""))
    return named if IDENTITY.match(named) else ""


def _on_docker(state: State) -> list[Metadata]:
    found = []
    for identity in state.identities():
        try:
            metadata = state.read(identity)
        except NoSuchBottle:  # what can't be read tells of no engine
            continue
        if metadata.backend == "docker":
            found.append(metadata)
    return found
