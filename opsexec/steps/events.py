"""Following a host as it changes: what only an ops-agent, which is there all the time, can tell."""

from __future__ import annotations

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.steps.base import Step
from opsexec.steps.observe import known_names

SAMPLED = ("load", "memory", "disks")
EVENT_NAMES = (*SAMPLED, "services", "containers", "runs")


class Events(Step, frozen=True, tag="events"):
    """Follow the host: one JSON line on stdout an event, until cancelled or `count` lines; all of EVENT_NAMES or these.

    `load`, `memory` and `disks` come as samples each `interval_s` seconds, the others when they change. Of runs one
    hears of one's own, and of those that `run.read` admits.
    """

    family = "agent"
    mutates = False

    names: tuple[str, ...] = ()
    interval_s: float = 5.0
    count: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known_names(self.names, EVENT_NAMES)
        if self.run_as is not None:
            raise BadStep("events are told by the agent itself, as nobody else", hint="leave run_as out")
        if not 0.05 <= self.interval_s <= 3600:
            raise BadStep("interval_s is not between 0.05 and 3600 seconds")

    def requires(self) -> tuple[Requirement, ...]:
        return tuple(Requirement("observe", name) for name in self.names or EVENT_NAMES)
