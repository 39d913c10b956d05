"""Steps that read the host itself: facts once, or a stream of observations."""

from __future__ import annotations

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.steps.base import Step

FACT_NAMES = ("os", "kernel", "cpu", "memory", "disks", "network", "user", "python", "tools")
OBSERVE_NAMES = ("load", "memory", "disks", "services")


class Facts(Step, frozen=True, tag="facts"):
    """Read facts by name; all of FACT_NAMES when none is named. The answer is `RunOutput.value`, a JSON object."""

    family = "observe"
    mutates = False

    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        known_names(self.names, FACT_NAMES)

    def requires(self) -> tuple[Requirement, ...]:
        return tuple(Requirement("facts", name) for name in self.names or FACT_NAMES)


class Observe(Step, frozen=True, tag="observe"):
    """Follow the host: one JSON line on stdout each `interval_s` seconds, until cancelled or `count` lines."""

    family = "observe"
    mutates = False

    names: tuple[str, ...] = ()
    interval_s: float = 5.0
    count: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known_names(self.names, OBSERVE_NAMES)
        if not 0.05 <= self.interval_s <= 3600:
            raise BadStep("interval_s is not between 0.05 and 3600 seconds")

    def requires(self) -> tuple[Requirement, ...]:
        return tuple(Requirement("observe", name) for name in self.names or OBSERVE_NAMES)


def known_names(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raise BadStep for a name that isn't among the known ones."""
    for name in names:
        if name not in known:
            raise BadStep(f"unknown name {name!r}", hint="known: " + ", ".join(known))
