"""A container step as the engine's API wants it (Docker Engine API, "Create a container"): pure, and hardened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from opsexec.capability import clean_path
from opsexec.errors import BadStep
from opsexec.handlers.container_syscalls import profile
from opsexec.secret import Secret
from opsexec.steps.container_shape import OWN_LABELS, ContainerShape
from opsexec.steps.text import as_bytes

CONFIG_LABEL = f"{OWN_LABELS}config"
"""Digest of what a container or network was made from: the same step again changes nothing."""
IMAGE_LABEL = f"{OWN_LABELS}image"
"""The same of an image. Another name: a container carries its image's labels beside its own."""
RUN_LABEL = f"{OWN_LABELS}run"
"""Which run made it."""

SHELL = "/bin/sh"
READ_SECRETS = """\
while IFS= read -r __name && [ -n "$__name" ]; do
IFS= read -r __value; __value=$(printf '%b.' "$__value"); export "$__name=${__value%.}"; done
unset __name __value; exec "$@"
"""
"""What runs first where there are secrets: `read` takes a pipe byte by byte, so what follows is the program's own.

Values come as octal escapes of printf's %b; the dot keeps trailing newlines (POSIX sh, 2.6.3).
"""

ENGINES = (
    "/run/docker.sock", "/run/docker", "/run/containerd", "/run/podman", "/run/crio", "/run/buildkit",
    "/run/user", "/run/k3s", "/run/snap.docker",
    "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/proc", "/sys", "/dev",
)  # fmt: skip
"""Places of a host by which a container would own it."""
OF_A_USER = ("/.docker/run", "/.docker/desktop")
"""Where a user's own engine has its sockets, below their home."""
ENGINE_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock", "buildkitd.sock")

CPU_PERIOD_US = 100_000
"""NanoCpus would be the shorter way to say it, and an error where the engine has fewer processors."""
JSON_FILE = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
NO_LOG: dict[str, Any] = {"Type": "none", "Config": {}}


def config_of(
    step: ContainerShape,
    sources: Mapping[str, str],
    *,
    argv: Sequence[str] = (),
    stdin: bool = False,
    log: Mapping[str, Any] = NO_LOG,
    own_labels: Mapping[str, str],
) -> dict[str, Any]:
    """Return the body of a create request; no secret is in it.

    `sources`: host path -> where it leads. `argv`: the words in place of the step's.
    """
    words = list(argv or step.argv)
    config: dict[str, Any] = {
        "Image": step.image,
        "Env": [f"{name}={value}" for name, value in step.env.items() if not isinstance(value, Secret)],
        "Labels": {**step.labels, **own_labels},
        "User": step.user,
        "Hostname": step.hostname,
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": stdin,
        "StdinOnce": stdin,
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true", *_filter(step)],
            "ReadonlyRootfs": step.read_only_root,
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "NetworkMode": step.networks[0].network if step.networks else "none",
            "Memory": step.memory_bytes,
            "MemorySwap": step.memory_bytes,
            "CpuPeriod": CPU_PERIOD_US,
            "CpuQuota": int(step.cpus * CPU_PERIOD_US),
            "PidsLimit": step.pids,
            "ShmSize": step.shm_bytes,
            "Ulimits": [
                {"Name": "nofile", "Soft": step.max_open_files, "Hard": step.max_open_files},
                {"Name": "fsize", "Soft": step.max_file_bytes, "Hard": step.max_file_bytes},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "Tmpfs": {clean_path(path): tmpfs_options(size) for path, size in step.tmpfs.items()},
            "Mounts": _mounts(step, sources),
            "Dns": list(step.dns),
            "ExtraHosts": [f"{name}:{address}" for name, address in step.extra_hosts.items()],
            "Init": step.init,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": dict(log),
        },
    }
    if words:
        config["Entrypoint"], config["Cmd"] = words, []
    if step.workdir is not None:
        config["WorkingDir"] = clean_path(step.workdir)
    if step.runtime is not None:
        config["HostConfig"]["Runtime"] = step.runtime
    if step.networks:
        first = step.networks[0]
        endpoint: dict[str, Any] = {"Aliases": list(first.aliases)}
        if first.ipv4 is not None:
            endpoint["IPAMConfig"] = {"IPv4Address": first.ipv4}
        config["NetworkingConfig"] = {"EndpointsConfig": {first.network: endpoint}}
    return config


def _filter(step: ContainerShape) -> list[str]:
    """Return the option that names a filter of system calls; the engine's own is none."""
    return [f"seccomp={profile()}"] if step.syscalls == "tight" else []


def tmpfs_options(size: int) -> str:
    """Return the mount options of a directory in memory: programs may be run from it, as from a home."""
    return f"rw,exec,nosuid,nodev,size={size},mode=1777"


def _mounts(step: ContainerShape, sources: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return bind mounts and volumes. What is mounted below a read-only source is left out: it would be writable."""
    mounts: list[dict[str, Any]] = []
    for inside, host in step.read_only.items():
        options = {"Propagation": "rprivate", "NonRecursive": True}
        mounts.append(_bind(inside, sources[host], options) | {"ReadOnly": True})
    for inside, host in step.writable.items():
        mounts.append(_bind(inside, sources[host], {"Propagation": "rprivate"}))
    mounts += [{"Type": "volume", "Target": clean_path(path)} for path in step.volumes]
    return mounts


def _bind(inside: str, source: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": clean_path(inside), "BindOptions": options}


def require_no_engine(sources: Mapping[str, str], socket: str, host: str) -> None:
    """Raise BadStep for a mount by which the container would reach an engine, devices or the kernel's own files."""
    for named, source in sources.items():
        for place in (*ENGINES, *(f"/var{place}" for place in ENGINES if place.startswith("/run/")), socket):
            if _meets(source, place):
                text = f"{named} would give the container {place}"
                raise BadStep(text, host=host, hint="by that it would own the host")
        if source.rpartition("/")[2] in ENGINE_SOCKETS or any(f"{each}/" in f"{source}/" for each in OF_A_USER):
            raise BadStep(f"{named} is a container engine's socket", host=host, hint="by that it would own the host")


def _meets(source: str, place: str) -> bool:
    """True when one of two paths holds the other."""
    outer, inner = sorted((source.rstrip("/"), place), key=len)
    return inner == outer or inner.startswith(f"{outer}/")


def reading_secrets(argv: Sequence[str]) -> list[str]:
    """Return the words that take secrets from stdin before they become `argv`."""
    return [SHELL, "-c", READ_SECRETS, SHELL, *argv]


def secrets_header(secrets: Mapping[str, str]) -> bytes:
    """Return variables as READ_SECRETS reads them."""
    lines = [name.encode() + b"\n" + b"".join(b"\\0%03o" % byte for byte in as_bytes(value)) + b"\n"
             for name, value in secrets.items()]  # fmt: skip
    return b"".join(lines) + b"\n"


def digest_of(*parts: Any) -> str:
    """Return the digest that stands in CONFIG_LABEL."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
