"""Steps on containers: made, run to their end, entered, looked at, stopped, removed (Docker Engine API).

What ends or removes a container names it and its labels: one of that name that doesn't carry them is somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import msgspec

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.argv import checked_argv
from opsexec.steps.base import Step
from opsexec.steps.container_shape import (
    ContainerShape,
    bind_path,
    checked_env,
    checked_labels,
    container_name,
    container_user,
    refuse_user,
)

Kind = Literal["containers", "networks", "images"]

_SIGNAL = re.compile(r"SIG[A-Z][A-Z0-9]{1,9}\Z")
_GLOB = re.compile(r"[A-Za-z0-9_.*:/-]{1,255}\Z")


class ContainerRun(ContainerShape, frozen=True, tag="container_run"):
    """Make a container, run it to its end with its input and output here, and remove it, whatever happens.

    A deadline, cancelling, and a lost caller end it as well. Its output is kept nowhere on the host. `stdin`: what it
    gets first; a stream follows it.
    """

    stdin: str | Secret | None = None


class ContainerCreate(ContainerShape, frozen=True, tag="container_create"):
    """Make a container, to be started by ContainerStart; one of that name and the same fields is there already.

    `value` is `{id}`. Its output is kept on the host, its last 2 MiB.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.secrets:
            raise BadStep(f"the Secret {min(self.secrets)} would be seen by `docker inspect`", hint="use ContainerRun")


class Labelled(Step, frozen=True, kw_only=True):
    """A container that is there. `labels`: what it must carry beside its name."""

    family = "containers"

    name: str
    labels: Mapping[str, str]

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_user(self)
        container_name(self.name)
        checked_labels(self.labels)


class ContainerStart(Labelled, frozen=True, tag="container_start"):
    """Start a container that was made; one that runs is left as it is."""

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.run", self.name),)


class ContainerStop(Labelled, frozen=True, tag="container_stop"):
    """Ask a container to end, and after `grace_s` seconds end it. One that isn't there or doesn't run is no error."""

    grace_s: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.grace_s <= 3600:
            raise BadStep("grace_s is not from 0 to 3600")

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.remove", self.name),)


class ContainerSignal(Labelled, frozen=True, tag="container_signal"):
    """Send a signal, like "SIGHUP", to a container's first process."""

    signal: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _SIGNAL.match(self.signal):
            raise BadStep(f"{self.signal[:40]!r} is no signal", hint="like SIGHUP")

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.remove", self.name),)


class ContainerRemove(Labelled, frozen=True, tag="container_remove"):
    """End a container at once and remove it with its volumes; one that isn't there is no error."""

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.remove", self.name),)


class ContainerExec(Labelled, frozen=True, tag="container_exec"):
    """Run a program in a container that runs, with its input and output here.

    `env`, `stdin` as ContainerRun has them, `user` None = the container's own. A deadline or cancelling ends what it
    started inside, where the container has a `sh` to do that with.
    """

    argv: Sequence[str]
    env: Mapping[str, str | Secret] = {}
    user: str | None = None
    workdir: str | None = None
    stdin: str | Secret | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        msgspec.structs.force_setattr(self, "argv", checked_argv(self.argv))
        checked_env(self.env)
        if self.user is not None:
            container_user(self.user)
        if self.workdir is not None:
            bind_path(self.workdir)

    @property
    def secrets(self) -> dict[str, str]:
        """The variables that go in by stdin, revealed."""
        return {name: value.reveal() for name, value in self.env.items() if isinstance(value, Secret)}

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.exec", self.name),)


class ContainerInspect(Step, frozen=True, tag="container_inspect"):
    """Look at one container; `value` is `{exists, id, image, labels, status, exit_code, networks, ...}`.

    Of its environment the names, never a value.
    """

    family = "containers"
    mutates = False

    name: str

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_user(self)
        container_name(self.name)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.read", self.name),)


class ContainerLogs(Step, frozen=True, tag="container_logs"):
    """Read what a container said that ContainerCreate made: its last `lines` lines."""

    family = "containers"
    mutates = False

    name: str
    lines: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_user(self)
        container_name(self.name)
        if not 0 < self.lines <= 100_000:
            raise BadStep("lines is not from 1 to 100000")

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.read", self.name),)


class ContainerList(Step, frozen=True, tag="container_list"):
    """List containers, networks or images that carry all these labels and whose name matches `names` (`*` in it).

    `value` is a list of `{name, id, labels, status}`. An empty label value stands for any.
    """

    family = "containers"
    mutates = False

    labels: Mapping[str, str]
    names: str = "*"
    kind: Kind = "containers"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_user(self)
        checked_labels(self.labels)
        if not _GLOB.match(self.names):
            raise BadStep(f"names {self.names[:60]!r} is malformed", hint="a name, with * in it")
        if self.kind not in get_args(Kind):
            raise BadStep(f"kind {self.kind[:40]!r} can't be listed", hint="one of: " + ", ".join(get_args(Kind)))

    def requires(self) -> tuple[Requirement, ...]:
        verb = {"containers": "container.read", "networks": "network.manage", "images": "image.read"}[self.kind]
        return (Requirement(verb, self.names),)
