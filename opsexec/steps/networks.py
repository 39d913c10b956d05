"""Steps on container networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.steps.base import Step
from opsexec.steps.container_shape import checked_labels, network_name, refuse_user


class NetworkStep(Step, frozen=True, kw_only=True):
    """A step about one network. `labels`: what it carries."""

    family = "containers"

    name: str
    labels: Mapping[str, str]

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_user(self)
        network_name(self.name)
        checked_labels(self.labels)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("network.manage", self.name),)


class NetworkCreate(NetworkStep, frozen=True, tag="network_create"):
    """Make a bridge network; one of that name and the same fields is there already.

    `internal`: no way out of it. `gateway`: whether the host has an address on it, by which everything that listens on
    all of the host's addresses can be reached, also where the network is internal. `subnet`: like "10.89.7.0/24",
    None = the engine's choice. `value` is `{id, subnet, gateway}`.
    """

    internal: bool = True
    gateway: bool = False
    subnet: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subnet is not None:
            try:
                subnet = ipaddress.IPv4Network(self.subnet)
            except ValueError as error:
                raise BadStep(f"subnet {self.subnet[:60]!r} is malformed", hint="like 10.89.7.0/24") from error
            if not subnet.is_private or not 16 <= subnet.prefixlen <= 29:
                raise BadStep(f"subnet {self.subnet} is not private, or not from /16 to /29")
        if not self.internal and not self.gateway:
            raise BadStep("a network that leads out has a gateway", hint="internal=True, or gateway=True")


class NetworkRemove(NetworkStep, frozen=True, tag="network_remove"):
    """Remove a network that carries these labels; one that isn't there is no error."""
