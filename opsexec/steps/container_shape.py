"""What a container is made of: the fields that ContainerCreate and ContainerRun share, hardened where none is named."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import msgspec

from opsexec.capability import Requirement, clean_path
from opsexec.errors import BadStep
from opsexec.secret import Secret, reveal
from opsexec.steps.argv import checked_argv
from opsexec.steps.base import Step
from opsexec.steps.sandbox import bound

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,127}\Z")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9_.:/@-]{0,511}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_ALIAS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?\Z")
_PLAIN_UID = re.compile(r"[1-9][0-9]{0,9}(:|\Z)")
_LABEL = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}\Z")
_RUNTIME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")

Syscalls = Literal["engine", "tight"]

OWN_LABELS = "opsexec."
"""Labels that begin so are the handlers' own."""

NO_NETWORKS = ("host", "none", "container")
"""Network modes that are no network: the host's own, no network at all (which is the default), another's namespace."""


class Attachment(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A network that a container is attached to: the address it has there, None = any, and its further names."""

    network: str
    ipv4: str | None = None
    aliases: tuple[str, ...] = ()


class ContainerShape(Step, frozen=True, kw_only=True):
    """A container without privileges: every capability dropped, no new privileges, a filter of system calls, no port,
    no device, no namespace of the host's. There is no field by which it could have more.

    `argv`: all words, in the place of the image's entrypoint and command; empty = the image's own. `env`: beside
    the image's; a Secret among it is no part of the container's configuration, and goes in by stdin (ContainerRun
    alone). `read_only`, `writable`: bind mounts, as SandboxRun has them: paths inside stand left, the host's right,
    and one that ends with `/` is a tree; with a writable one `user` is a number, and not 0: inside it is the
    host's. `tmpfs`: directories in memory, path -> bytes. `volumes`: directories on the engine's disk that go when
    the container goes. `networks`: none = no network but a loopback. `dns`, `extra_hosts`: who resolves names on a
    network, and names that need no resolving (name -> address). `memory_bytes`: with swap. `cpus`: at most as many
    as the engine has. `pids`: processes and threads. `runtime`: as the engine calls it, None = its default;
    `runtime_optional`: its default too where it has none of that name. `init`: a small init of the engine's as PID 1.
    `syscalls`: the engine's own filter, or a tighter one of ours where the engine takes it: as a sandbox has it, and
    nothing that the engine's default refuses. It is never in the place of a filter that the engine's operator wrote.
    """

    family = "containers"

    name: str
    image: str
    labels: Mapping[str, str]
    argv: Sequence[str] = ()
    env: Mapping[str, str | Secret] = {}
    user: str = "1000:1000"
    workdir: str | None = None
    hostname: str = "container"
    read_only_root: bool = True
    read_only: Mapping[str, str] = {}
    writable: Mapping[str, str] = {}
    tmpfs: Mapping[str, int] = {}
    volumes: tuple[str, ...] = ()
    networks: tuple[Attachment, ...] = ()
    dns: tuple[str, ...] = ()
    extra_hosts: Mapping[str, str] = {}
    memory_bytes: int = 4 << 30
    shm_bytes: int = 64 << 20
    cpus: float = 2.0
    pids: int = 1024
    max_open_files: int = 16384
    max_file_bytes: int = 64 << 30
    runtime: str | None = None
    runtime_optional: bool = False
    init: bool = False
    syscalls: Syscalls = "engine"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_user(self)
        container_name(self.name)
        image_name(self.image)
        checked_labels(self.labels)
        if self.argv:
            msgspec.structs.force_setattr(self, "argv", checked_argv(self.argv))
        checked_env(self.env)
        container_user(self.user)
        if self.writable and not _PLAIN_UID.match(self.user):
            hint = "name a plain user by number, like 1000:1000"
            raise BadStep("a container that may write on the host could do so as its root", hint=hint)
        if not _HOSTNAME.match(self.hostname):
            raise BadStep(f"hostname {self.hostname[:60]!r} is malformed")
        if self.runtime is not None and not _RUNTIME.match(self.runtime):
            raise BadStep(f"runtime {self.runtime[:60]!r} is malformed")
        if self.syscalls not in get_args(Syscalls):
            raise BadStep(f"syscalls {self.syscalls[:40]!r} is no filter", hint="one of: engine, tight")
        self._check_places()
        self._check_networks()
        sizes = (self.memory_bytes, self.shm_bytes, self.pids, self.max_open_files, self.max_file_bytes)
        if min(*sizes, *self.tmpfs.values()) <= 0 or not 0.01 <= self.cpus <= 4096:
            raise BadStep("a limit is not positive, or cpus not from 0.01 to 4096")

    def _check_places(self) -> None:
        inside = [*self.read_only, *self.writable, *self.tmpfs, *self.volumes]
        for path in (*inside, *self.read_only.values(), *self.writable.values()):
            bind_path(path)
        if self.workdir is not None:
            bind_path(self.workdir)
        places = [clean_path(path) for path in inside]
        if "/" in places:
            raise BadStep("the container's root can't be mounted over", hint="it is its image")
        twice = {path for path in places if places.count(path) > 1}
        if twice:
            raise BadStep(f"{min(twice)} is mounted twice")

    def _check_networks(self) -> None:
        names = [attachment.network for attachment in self.networks]
        for attachment in self.networks:
            network_name(attachment.network)
            if attachment.ipv4 is not None:
                _address(attachment.ipv4, 4)
            if not all(_ALIAS.match(alias) for alias in attachment.aliases):
                raise BadStep(f"an alias on {attachment.network} is no host name")
        if len(set(names)) < len(names):
            raise BadStep("a network is named twice")
        for name, address in self.extra_hosts.items():
            if not _ALIAS.match(name):
                raise BadStep(f"{name[:60]!r} in extra_hosts is no host name")
            _address(address)
        for address in self.dns:
            _address(address)
        if (self.dns or self.extra_hosts) and not names:
            raise BadStep("dns and extra_hosts are for a container on a network", hint="name its networks")

    @property
    def secrets(self) -> dict[str, str]:
        """The variables that are no part of the container's configuration, revealed."""
        return {name: value.reveal() for name, value in self.env.items() if isinstance(value, Secret)}

    def requires(self) -> tuple[Requirement, ...]:
        needs = [Requirement("container.run", self.name), Requirement("image.read", self.image)]
        needs += [Requirement("network.join", attachment.network) for attachment in self.networks]
        needs += [Requirement("fs.read", bound(host)) for host in dict.fromkeys(self.read_only.values())]
        for host in dict.fromkeys(self.writable.values()):
            needs += [Requirement("fs.read", bound(host)), Requirement("fs.write", bound(host))]
        return tuple(needs)


def refuse_user(step: Step) -> None:
    """Raise BadStep for a step that names a user of the host: an engine is asked by the login, or not at all."""
    if step.run_as is not None:
        raise BadStep("a container engine is asked by the login itself", hint="leave run_as out; see `user`")


def container_name(name: str) -> str:
    """Return a container's name; raises BadStep unless docker takes it."""
    if not _NAME.match(name):
        raise BadStep(f"container name {name[:60]!r} is malformed", hint="letters, digits and _.-, two at least")
    return name


def image_name(name: str) -> str:
    """Return an image's name, `repository[:tag][@digest]` or its id; raises BadStep."""
    if not _IMAGE.match(name):
        raise BadStep(f"image name {name[:80]!r} is malformed", hint="like debian:bookworm-slim")
    return name


def network_name(name: str) -> str:
    """Return a container network's name; raises BadStep, also for modes that are no network."""
    if not _NAME.match(name) or name in NO_NETWORKS:
        raise BadStep(f"{name[:60]!r} is no container network", hint="name one that NetworkCreate made")
    return name


def checked_labels(labels: Mapping[str, str]) -> None:
    """Raise BadStep unless these are labels, and at least one: what has none can't be told from somebody else's."""
    if not labels:
        raise BadStep("there is no label", hint="what is made carries one, and only what carries it is removed")
    for key, value in labels.items():
        if not _LABEL.match(key) or key.startswith(OWN_LABELS):
            raise BadStep(f"label {key[:60]!r} is malformed or reserved", hint=f"not {OWN_LABELS}*")
        if len(value) > 4096 or not value.isprintable():
            raise BadStep(f"the value of label {key} is not printable, or over 4096 characters")


def checked_env(env: Mapping[str, str | Secret]) -> None:
    """Raise BadStep unless these are variables."""
    for name, value in env.items():
        if not _VARIABLE.match(name) or "\0" in reveal(value):
            raise BadStep(f"environment variable {name[:60]!r} is malformed")


def container_user(user: str) -> str:
    """Return a user inside, `user[:group]` by name or number; raises BadStep."""
    if not _USER.match(user):
        raise BadStep(f"user {user[:60]!r} is malformed", hint="like 1000:1000")
    return user


def bind_path(path: str) -> str:
    """Return a path of a mount, normalised; raises BadStep for one that docker's notation can't hold."""
    if not path.isprintable():
        raise BadStep(f"path {path[:60]!r} holds a character that can't be shown")
    return clean_path(path)


def _address(text: str, version: int | None = None) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise BadStep(f"{text[:60]!r} is no IP address") from error
    if version is not None and address.version != version:
        raise BadStep(f"{text} is not an IPv{version} address")
