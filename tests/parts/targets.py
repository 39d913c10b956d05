"""The machines one suite runs over: this one directly, and behind sshd as root and as a plain user."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opsexec import CapabilitySet, connect
from opsexec.executor import AuditSink
from opsexec.host_executor import HostExecutor
from tests.parts.sshd import Endpoint


@dataclass(frozen=True)
class Target:
    """One way to a host. `login`: the unix user that steps run as when they name none."""

    name: str
    url: str
    login: str
    audit: AuditSink
    identity_files: Sequence[Path] | None = None
    known_hosts: Path | None = None
    tailscaled_socket: str | None = None
    way_bytes: int = 4 << 20
    """Bytes that may lie between here and a program that doesn't read."""

    def connect(
        self,
        *capabilities: str,
        run_as: Sequence[str] = (),
        max_timeout_s: float | None = None,
        max_output_bytes: int | None = None,
        audit: AuditSink | None = None,
        keepalive_s: float = 15.0,
        connect_timeout_s: float = 10.0,
    ) -> HostExecutor:
        """An executor that holds these capabilities; with none named it holds everything."""
        held = (
            CapabilitySet.of(
                *capabilities, run_as=run_as, max_timeout_s=max_timeout_s, max_output_bytes=max_output_bytes
            )
            if capabilities
            else CapabilitySet.everything()
        )
        if not capabilities and (max_timeout_s or max_output_bytes):
            limits = CapabilitySet.of(
                "exec:**", "shell:*", "tty:**", "observe:*", "env:*",
                run_as=["*"], max_timeout_s=max_timeout_s, max_output_bytes=max_output_bytes,
            )  # fmt: skip
            held = held.intersect(limits)
        return connect(
            self.url,
            capabilities=held,
            audit=audit or self.audit,
            identity_files=None if self.identity_files is None else [str(p) for p in self.identity_files],
            known_hosts=None if self.known_hosts is None else str(self.known_hosts),
            config_files=(),
            keepalive_s=keepalive_s,
            connect_timeout_s=connect_timeout_s,
            tailscaled_socket=self.tailscaled_socket,
        )

    @property
    def is_ssh(self) -> bool:
        """Whether a connection lies between."""
        return self.url.startswith("ssh:")

    @property
    def home(self) -> str:
        """The login's home directory."""
        return pwd.getpwnam(self.login).pw_dir


def over_ssh(name: str, endpoint: Endpoint, audit: AuditSink) -> Target:
    """The machine behind an endpoint."""
    return Target(name, endpoint.url, endpoint.user, audit, (endpoint.identity,), endpoint.known_hosts)
