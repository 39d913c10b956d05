"""deps.health: the command that says whether a service works."""

from __future__ import annotations

from agent.services.check import check
from agent.services.finding import Ruling, passed, skipped, warned
from agent.services.look import Look


@check(
    "deps.health", "service", reads="the declared health.command, which takes an exec grant of its own",
    fails_when="it ends with another status than 0, or without the expected words", after=("svc.state",),
)  # fmt: skip
async def health(look: Look) -> Ruling:
    """Run the declared command."""
    declared = look.declared
    if declared is None or declared.health.type != "command" or not declared.health.command:
        return skipped("no health command is declared")
    said = await look.probe.run(declared.health.command, timeout_s=float(declared.health.timeout_seconds))
    if said.rc != 0:
        return warned("the health command fails", said.evidence)
    if declared.health.expected is not None and declared.health.expected not in said.out:
        return warned("the health command doesn't say what is expected", said.evidence)
    return passed("the health command is content")
