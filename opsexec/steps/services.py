"""Steps on services, through the host's service manager (systemctl)."""

from __future__ import annotations

from typing import Literal

from opsexec.capability import Requirement
from opsexec.steps.base import Step, service_name

Action = Literal["start", "stop", "restart", "reload", "enable", "disable"]


class ServiceStatus(Step, frozen=True, tag="service_status"):
    """Read a service's state; a unit that doesn't exist is an answer (`load_state: not-found`).

    `user`: the login's own service manager instead of the system's.
    """

    family = "services"
    mutates = False

    name: str
    user: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        service_name(self.name)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("service.read", self.name),)


class ServiceControl(Step, frozen=True, tag="service"):
    """Bring a service into a state. start, stop, enable and disable change nothing when it is already so."""

    family = "services"

    name: str
    action: Action
    user: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        service_name(self.name)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("service.control", self.name),)
