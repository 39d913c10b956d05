"""Taking away what an engine may still be busy with: tried again for a while, which has a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from opsexec.errors import StepFailed
from opsexec.steps import ContainerRemove, NetworkRemove, Step

PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


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
