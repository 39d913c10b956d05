"""Steps that ops-agent alone can do: on other hosts nobody keeps schedules, or an audit of the host's own."""

from __future__ import annotations

from opsexec.errors import HostUnsuitable
from opsexec.handlers.context import Context, Outcome
from opsexec.steps.base import Step


async def handle(step: Step, context: Context) -> Outcome:
    """Refuse: the agent has handlers of its own for these."""
    hint = "ask an agent: agent+unix:///path or agent+ssh://host"
    raise HostUnsuitable(f"a {type(step).__name__} step needs ops-agent on the host", host=context.host.name, hint=hint)
