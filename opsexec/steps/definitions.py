"""Steps on what a service manager knows of a service, and on what one leaves behind."""

from __future__ import annotations

import re
from typing import Literal

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.steps.base import Step, service_name

DefinitionAction = Literal["reload", "mask", "unmask", "reset-failed", "kill"]
VERBS: dict[DefinitionAction, str] = {
    "reload": "service.install",
    "mask": "service.quarantine",
    "unmask": "service.quarantine",
    "reset-failed": "service.quarantine",
    "kill": "service.quarantine",
}
"""Action -> the verb that admits it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}\Z")
_CONNECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,254}\Z")


class ServiceDefinition(Step, frozen=True, tag="service_definition"):
    """Tell the service manager about a service's definition.

    reload: it was written or removed, read it anew. mask, unmask: nobody, not even by hand, can start it; or can again.
    reset-failed: forget that it failed, and how often it was started. kill: SIGKILL to everything it left running.
    """

    family = "services"

    name: str
    action: DefinitionAction
    user: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        service_name(self.name)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement(VERBS[self.action], self.name),)


class PodmanRemove(Step, frozen=True, tag="podman_remove"):
    """Stop a podman container at once and remove it; one that isn't there is no error.

    `connection`: the podman connection it is reached by, None = podman as it is.
    """

    family = "podman"

    name: str
    connection: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NAME.match(self.name):
            raise BadStep(f"{self.name[:60]!r} is no name of a container")
        if self.connection is not None and not _CONNECTION.match(self.connection):
            raise BadStep(f"connection {self.connection[:60]!r} is malformed")

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.remove", self.name),)
