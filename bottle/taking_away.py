"""Taking away what an engine may still be busy with: tried again for a while, which has a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from opsexec.errors import ConnectionLost, HostUnsuitable, OpsError, StepFailed
from opsexec.steps import ContainerRemove, NetworkRemove, Step

PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


AWAY_S = 20.0
"""How long an engine that went away is waited for: one that is restarted is back within seconds."""


def patience() -> Iterator[float]:
    """Return the pauses, in seconds, that are made for everything together."""
    return iter(PAUSES_S)


async def gone(run: Callable[[Step], Awaitable[object]], step: Step, pauses: Iterator[float]) -> None:
    """Take one thing away; a container or network is tried again while there are pauses left.

    An engine says that a network is in use until it is done with the end of a container on it.
    """
    if isinstance(step, (ContainerRemove, NetworkRemove)):
        for pause_s in pauses:
            try:
                await run(step)
            except StepFailed:
                await asyncio.sleep(pause_s)
            else:
                return
    await run(step)


async def undone(
    work: Sequence[tuple[str, Sequence[Step]]],
    run: Callable[[Step], Awaitable[object]],
    say: Callable[[str], None],
) -> None:
    """Take all of it away, under the names of what was made; what can't be is told, and the rest goes on."""
    pauses = patience()
    for name, steps in work:
        for step in steps:
            try:
                await gone(run, step, pauses)
            except OpsError as error:
                say(f"undoing {name} failed: {error}")


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return `say` as it tells no line twice: an engine that isn't there fails everything in the same words."""
    told: set[str] = set()

    def first(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    return first


def waited_for(
    run: Callable[[Step], Awaitable[object]], say: Callable[[str], None], within_s: float = AWAY_S
) -> Callable[[Step], Awaitable[object]]:
    """Return `run` as it waits for an engine that went away under a bottle, so many seconds for all steps together.

    Containers outlive an engine that was killed, and one that keeps them while it is restarted (`live-restore`): then
    the agent would run on with nobody to answer for it.
    """
    until: float | None = None

    async def patient(step: Step) -> object:
        nonlocal until
        while True:
            try:
                return await run(step)
            except (HostUnsuitable, ConnectionLost):
                if until is None:
                    until = time.monotonic() + within_s
                    say(f"the container engine went away: waiting {within_s:g} s for it, to end what may run on there")
                elif time.monotonic() > until:
                    if until > 0:
                        say("warning: the agent may run on there; `bottle cleanup` ends it once the engine is back")
                    until = 0
                    raise
            await asyncio.sleep(PAUSES_S[2])

    return patient
