"""One follower: an Events step, done in the agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from agent.events.feed import Feed
from opsexec.capability import Requirement
from opsexec.errors import OpsError
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.far_answers import decoded
from opsexec.handlers.limits import call, require_within_limit, within
from opsexec.steps.events import EVENT_NAMES, SAMPLED, Events

if TYPE_CHECKING:
    from agent.events.hub import Hub


async def follow(hub: Hub, step: Events, context: Context, principal: str) -> Outcome:
    """Tell a principal what it may hear, until cancelled; of runs its own, and those that its set admits."""

    def admits(run: str, of: str) -> bool:
        return of == principal or context.capabilities.admits(Requirement("run.read", run))

    return await within("following events", _tell(hub, step, context, admits), context)


async def _tell(hub: Hub, step: Events, context: Context, admits: Callable[[str, str], bool]) -> Outcome:
    """Feed one JSON line an event to the sink. While the sink is behind they wait in the feed, which is bounded."""
    names = step.names or EVENT_NAMES
    sampled = [name for name in names if name in SAMPLED]
    feed = Feed()
    recorder = context.recorder
    drained = asyncio.Event()
    recorder.on_drain = recorder.on_failure = drained.set
    left = step.count
    sampling: asyncio.Task[None] | None = None
    with ExitStack() as held:
        held.enter_context(hub.following(names, feed))
        if "runs" in names:
            held.enter_context(hub.following_runs(feed, admits))
        if sampled:
            sampling = asyncio.create_task(_sample(sampled, step.interval_s, feed, context))
        try:
            while recorder.failure is None and left != 0:
                event = await _next(feed, sampling)
                drained.clear()
                behind = not recorder.feed(0, json.dumps(event).encode() + b"\n")
                require_within_limit(context)
                if behind and recorder.failure is None:
                    await drained.wait()
                if left is not None:
                    left -= 1
        finally:
            if sampling is not None:
                sampling.cancel()
                await asyncio.wait([sampling])
    return Outcome()


async def _next(feed: Feed, sampling: asyncio.Task[None] | None) -> dict[str, Any]:
    """Return the next event; raises what ended the sampling."""
    if sampling is None:
        return await feed.get()
    waiting = asyncio.ensure_future(feed.get())
    try:
        await asyncio.wait([waiting, sampling], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            sampling.result()
            raise OpsError("the sampling of this host ended")
        return waiting.result()
    finally:
        waiting.cancel()


async def _sample(names: list[str], interval_s: float, feed: Feed, context: Context) -> None:
    """Feed a sample on a steady beat."""
    loop = asyncio.get_running_loop()
    next_at = loop.time()
    while True:
        (answer,) = await call("observe", [",".join(names).encode()], None, context, items=1)
        feed.put({"event": "sample", **decoded(answer, context)})
        next_at = max(next_at + interval_s, loop.time())
        await asyncio.sleep(next_at - loop.time())
