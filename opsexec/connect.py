"""`connect(url)`: from an executor URL to an Executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from opsexec.errors import UsageError

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import AuditSink
    from opsexec.host_executor import HostExecutor

SCHEMES = ("local:", "ssh://", "agent+unix://", "agent+ssh://", "agent+tcp://", "tailnet://")


def connect(
    url: str,
    *,
    capabilities: CapabilitySet,
    audit: AuditSink | None = None,
    name: str | None = None,
    identity_files: str | Sequence[str] | None = None,
    known_hosts: str | Sequence[str] | None = None,
    host_keys: Literal["strict", "accept-new"] = "strict",
    config_files: str | Sequence[str] | None = None,
    jump: str | None = None,
    connect_timeout_s: float = 10.0,
    keepalive_s: float = 15.0,
    tailscaled_socket: str | None = None,
    listener: str = "library",
) -> HostExecutor:
    """Return the Executor that a URL names, to be used as `async with connect(...) as ex`.

    `local:` is this machine; `ssh://[user@]host[:port]` goes through sshd; `agent+unix:///path` asks an ops-agent here,
    `agent+ssh://[user@]host[:port][/path]` one behind sshd, `tailnet://name[:port]` and `agent+tcp://address[:port]`
    one on another node of the tailnet. Nothing is opened before the first admitted step.
    `audit`: None = the user's own log; `listener`: by which way it was asked, as that log says; `tailscaled_socket`:
    None = this machine's own tailscaled. The rest is as in `SshOptions`, one file alone given as itself or in a list;
    times in seconds. Raises UsageError for a URL that names no executor.
    """
    _refuse_what_would_be_misread(url, capabilities, host_keys)
    if url in ("local:", "local://"):
        from opsexec.local import LocalExec

        return LocalExec(capabilities=capabilities, audit=audit, name=name or "local", listener=listener)
    if url.startswith(("agent+unix://", "agent+tcp://", "tailnet://")):
        from opsexec.rpc import AgentRpc

        return AgentRpc(
            url,
            capabilities=capabilities,
            audit=audit,
            name=name,
            tailscaled_socket=tailscaled_socket,
            listener=listener,
        )
    if url.startswith(("ssh://", "agent+ssh://")):
        from opsexec.hosts.ssh_login import SshOptions

        options = SshOptions(
            identity_files=_files(identity_files),
            known_hosts=_files(known_hosts),
            host_keys=host_keys,
            config_files=_files(config_files),
            jump=jump,
            connect_timeout_s=connect_timeout_s,
            keepalive_s=keepalive_s,
        )
        if url.startswith("agent+"):
            from opsexec.rpc import AgentRpc

            return AgentRpc(url, capabilities=capabilities, audit=audit, name=name, options=options, listener=listener)
        from opsexec.ssh import SshExec

        return SshExec(
            url.removeprefix("ssh://").rstrip("/"),
            capabilities=capabilities,
            audit=audit,
            name=name,
            options=options,
            listener=listener,
        )
    raise UsageError(
        f"{url!r} is not an executor URL",
        hint="use local:, ssh://[user@]host[:port], agent+unix:///path or tailnet://name",
    )


def _refuse_what_would_be_misread(url: object, capabilities: object, host_keys: str) -> None:
    from opsexec.capability import CapabilitySet

    if not isinstance(url, str):
        raise UsageError(f"the URL {url!r} is no text", hint="like ssh://deploy@web1 or local:")
    if not isinstance(capabilities, CapabilitySet):
        raise UsageError("capabilities is no CapabilitySet", hint='write CapabilitySet.of("exec:/usr/bin/uptime")')
    if host_keys not in ("strict", "accept-new"):
        raise UsageError(f"host_keys is {host_keys!r}", hint='either "strict" or "accept-new"')


def _files(paths: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return paths as a tuple; one path alone may be given as itself."""
    if paths is None:
        return None
    return (str(paths),) if isinstance(paths, str) or not isinstance(paths, Sequence) else tuple(map(str, paths))
