"""The `command` provider: any argv, given after `--`. The default of the demo."""

from __future__ import annotations

from bottle.manifest.kinds import AgentProvider
from bottle.providers.base import GuestPlace, HostFacts, ProviderPlan


def provide(settings: AgentProvider, place: GuestPlace, facts: HostFacts) -> ProviderPlan:
    """Return a plan without a command of its own; BOTTLE_PROMPT names the prompt's file."""
    return ProviderPlan(
        name="command",
        command=(),
        image="bottle-command",
        dockerfile="command.Dockerfile",
        prompt_mode="environment",
        env={"BOTTLE_PROMPT": place.prompt},
    )
