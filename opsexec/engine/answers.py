"""What an engine's answers must look like, as far as anything here looks at them (Docker Engine API v1.41 and on)."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from opsexec.errors import ProtocolError

Shape = TypeVar("Shape")


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    """Fields as the API names them; those that aren't named here are passed over, and null stands for none."""


class Made(_Answer, frozen=True):
    """What was made."""

    id: str


class Info(_Answer, frozen=True):
    """The engine itself."""

    runtimes: dict[str, Any] | None = msgspec.field(default=None, name="Runtimes")
    architecture: str = ""
    security_options: list[str] | None = None
    buildah: str | None = msgspec.field(default=None, name="BuildahVersion")
    """Told by podman, and by no other engine."""


class Config(_Answer, frozen=True):
    """What a container, or an image's container, is configured with."""

    labels: dict[str, str] | None = None
    env: list[str] | None = None
    image: str | None = None
    user: str | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    on_build: list[str] | None = None

    @property
    def env_names(self) -> list[str]:
        """The names of its variables."""
        return sorted(each.partition("=")[0] for each in self.env or ())

    @property
    def argv(self) -> list[str]:
        """What it runs."""
        return [*(self.entrypoint or ()), *(self.cmd or ())]


class State(_Answer, frozen=True):
    """How a container is."""

    running: bool
    status: str = ""
    exit_code: int = 0
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)
    started_at: str = ""
    finished_at: str = ""


class Endpoint(_Answer, frozen=True):
    """A container's place on a network."""

    ip_address: str = msgspec.field(name="IPAddress", default="")
    mac_address: str = ""


class Networks(_Answer, frozen=True):
    """A container's places."""

    networks: dict[str, Endpoint] | None = None


class Mount(_Answer, frozen=True):
    """One of a container's mounts."""

    type: str = ""
    destination: str = ""
    rw: bool = msgspec.field(name="RW", default=False)


class Container(_Answer, frozen=True):
    """One container."""

    id: str
    name: str
    image: str
    config: Config
    state: State
    network_settings: Networks | None = None
    mounts: list[Mount] | None = None


class Image(_Answer, frozen=True):
    """One image."""

    id: str
    config: Config | None = None
    size: int = 0
    created: str | None = None
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None

    def is_called(self, name: str) -> bool:
        """True unless `name` is but the beginning of its id, which no grant of a name means."""
        number = self.id.removeprefix("sha256:")
        return self.id == name or not number.startswith(name) or f"{name}:latest" in (self.repo_tags or ())

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return (self.config and self.config.labels) or {}


class Pool(_Answer, frozen=True):
    """The addresses of a network."""

    subnet: str | None = None
    gateway: str | None = None


class Ipam(_Answer, frozen=True):
    """All of them."""

    config: list[Pool] | None = None


class Network(_Answer, frozen=True):
    """One network."""

    id: str
    name: str
    labels: dict[str, str] | None = None
    ipam: Ipam | None = msgspec.field(name="IPAM", default=None)


class Running(_Answer, frozen=True):
    """A program in a container."""

    running: bool
    exit_code: int | None = None


class ListedContainer(_Answer, frozen=True):
    """A container in a list."""

    id: str
    names: list[str] | None = None
    labels: dict[str, str] | None = None
    state: str | None = None


class ListedImage(_Answer, frozen=True):
    """An image in a list."""

    id: str
    repo_tags: list[str] | None = None
    labels: dict[str, str] | None = None


def shaped(answer: Any, shape: type[Shape], host: str) -> Shape:
    """Return an answer as this shape; raises ProtocolError when it is another."""
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        text = f"the container engine's answer has another shape: {error}"
        raise ProtocolError(text, host=host, hint="is that docker's socket, and its version 20.10 or later?") from error
