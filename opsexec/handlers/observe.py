"""Facts and Observe: what the host says of itself, once or again and again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from opsexec.errors import BadStep, ConnectionLost, HostUnsuitable
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.far_answers import decoded
from opsexec.handlers.limits import call, require_within_limit, within
from opsexec.handlers.systemctl import Systemctl
from opsexec.hosts.port import Behind
from opsexec.steps.base import Step
from opsexec.steps.observe import FACT_NAMES, OBSERVE_NAMES, Facts, Observe


async def handle(step: Step, context: Context) -> Outcome:
    """Read facts, or follow the host."""
    if isinstance(step, Facts):
        names = ",".join(step.names or FACT_NAMES)
        (answer,) = await call("facts", [names.encode()], step.run_as, context, items=1)
        return Outcome(value=decoded(answer, context))
    if isinstance(step, Observe):
        return await within("observing", _observe(step, context), context)
    raise BadStep(f"{type(step).__name__} observes nothing")


async def _observe(step: Observe, context: Context) -> Outcome:
    """Feed one JSON line a sample to the sink, on a steady beat, waiting while the sink is behind.

    All samples come over one connection: one that was lost between two of them is an error, too.
    """
    names = step.names or OBSERVE_NAMES
    recorder = context.recorder
    drained = asyncio.Event()
    recorder.on_drain = recorder.on_failure = drained.set
    held = await context.host.connection() if isinstance(context.host, Behind) else None
    next_at = time.monotonic()
    seen = 0
    while recorder.failure is None:
        if held is not None and held.is_closed():
            text = "the connection was lost between two samples"
            raise ConnectionLost(text, host=context.host.name, hint="observe again")
        line = json.dumps(await _sample(names, step, context)).encode() + b"\n"
        drained.clear()
        behind = not recorder.feed(0, line)
        require_within_limit(context)
        if behind and recorder.failure is None:
            await drained.wait()
        seen += 1
        if seen == step.count:
            break
        next_at = max(next_at + step.interval_s, time.monotonic())
        await asyncio.sleep(next_at - time.monotonic())
    return Outcome()


async def _sample(names: tuple[str, ...], step: Observe, context: Context) -> dict[str, Any]:
    far = ",".join(name for name in names if name != "services")
    (answer,) = await call("observe", [far.encode()], step.run_as, context, items=1)
    sample = decoded(answer, context)
    if "services" in names:
        sample["services"] = await _failed_services(step, context)
    return sample


async def _failed_services(step: Observe, context: Context) -> dict[str, Any] | None:
    """Return the names of failed units; None where no service manager answers."""
    systemctl = Systemctl(context, step.run_as)
    try:
        output = await systemctl.run("list-units", "--plain", "--no-legend", "--state=failed")
    except HostUnsuitable:
        return None
    systemctl.require_ok(output, "list failed services")
    return {"failed": [line.split()[0] for line in output.text.splitlines() if line.strip()]}
