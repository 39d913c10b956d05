"""Waiting, over a link of its own, until an agent has ended a run whose link could not bring that word any more."""

from __future__ import annotations

import asyncio

from opsexec.errors import ConnectionLost, OpsError
from opsexec.hosts.agent_exchange import LEAVE_S, Exchange, request_head
from opsexec.hosts.agent_host import Way
from opsexec.wire import Result

AGAIN_S = 0.05


async def wait_until_ended(way: Way, host: str, run: str) -> bool:
    """Return once the agent lists the run no longer; False when it can't be asked, or LEAVE_S seconds have passed.

    For ways that carry no half close: the agent hears that the whole link is gone, and ends the run by itself.
    """
    try:
        async with asyncio.timeout(LEAVE_S):
            link = await way.open(host)
            try:
                while await _goes_on(Exchange(link, host), run):  # noqa: ASYNC110  # what is waited for is in the agent
                    await asyncio.sleep(AGAIN_S)
            finally:
                link.abort(ConnectionLost("left by the caller", host=host))
    except (OpsError, TimeoutError):
        return False
    return True


async def _goes_on(exchange: Exchange, run: str) -> bool:
    end = await exchange.run(request_head("GET", "/v1/runs"))
    found = end.value.get("runs") if isinstance(end, Result) and isinstance(end.value, dict) else None
    return isinstance(found, list) and any(
        isinstance(each, dict) and each.get("run") == run and not each.get("detached") for each in found
    )
