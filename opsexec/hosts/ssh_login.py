"""Opening one SSH connection: addresses, keys, known hosts, jumps; every failure a sentence and a hint."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import socket
from pathlib import Path
from typing import Any

import msgspec

from opsexec.errors import HostUnreachable, UsageError
from opsexec.hosts.asyncssh_loader import asyncssh
from opsexec.hosts.known_hosts import HostKeyCheck, HostKeys
from opsexec.hosts.known_hosts_files import known_hosts_files
from opsexec.hosts.reading import read_in_blocks
from opsexec.hosts.ssh_included import check_included, require_own
from opsexec.hosts.ssh_keys import encrypted_among, key_arguments

CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
"""AES-GCM first: it is the fastest of the strong ones where the processor helps (measured: 2x chacha20 here)."""
HOST_KEYS = "+" + ",".join(
    ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256")
)
"""Kinds of host key to accept after those that are known: a host that has only others shows which, and is refused."""
MAX_JUMPS = 8


_UNSAFE = r"\s\x00-\x1f\x7f-\x9f'`\"$\\;&<>|(){}"
_PLAIN_HOST = re.compile(rf"(?!-)[^{_UNSAFE}/?#]+\Z")
_PLAIN_USER = re.compile(rf"(?!-)(?:[^{_UNSAFE}]|\\(?!\Z))*\Z")
"""As ssh(1) has them since 9.6 (ssh.c, valid_hostname and valid_ruser): both may stand in a configured ProxyCommand."""


class SshOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in. Times in seconds. `config_files`: None = ~/.ssh/config where it exists, () = none.

    `known_hosts`: files, the first is where accept-new writes; None = what the config says, else ~/.ssh/known_hosts and
    /etc/ssh/ssh_known_hosts. `identity_files`: None = the config's, the agent's, then ~/.ssh/id_*. `jump`: hosts to go
    through, "user@host:port,..."; None = what the config says.
    """

    identity_files: tuple[str, ...] | None = None
    known_hosts: tuple[str, ...] | None = None
    host_keys: HostKeys = "strict"
    config_files: tuple[str, ...] | None = None
    jump: str | None = None
    use_agent: bool = True
    connect_timeout_s: float = 10.0
    keepalive_s: float = 15.0


class SshAddress(msgspec.Struct, frozen=True):
    """Where to log in: a host name, alias or address; user and port where given."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> SshAddress:
        """Parse `[user@]host[:port]`, IPv6 in brackets. Raises UsageError."""
        user, at, rest = text.rpartition("@")
        if rest.startswith("["):
            host, bracket, tail = rest[1:].partition("]")
            port_text = tail[1:] if tail.startswith(":") else ""
            wrong = not bracket or (tail and not tail.startswith(":"))
        else:
            host, _, port_text = rest.partition(":")
            wrong = ":" in port_text
        if wrong or not host or (at and not user) or not _PLAIN_HOST.match(host) or not _PLAIN_USER.match(user):
            raise UsageError(f"{text!r} is not [user@]host[:port]", hint="like deploy@web1:2222, IPv6 in [brackets]")
        if port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
            raise UsageError(f"port {port_text!r} in {text!r} is not 1..65535")
        return cls(host, user or None, int(port_text) if port_text else None)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


class KnownAs(msgspec.Struct, frozen=True):
    """Where a host's keys are looked for. `files`: of known hosts; `host`: HostName, else the host that was asked for.

    `alias`: HostKeyAlias, a name without a port, None where there is none.
    """

    files: tuple[str, ...]
    host: str
    alias: str | None = None


class Login(msgspec.Struct, frozen=True):
    """An open connection and the jump connections under it, outermost first."""

    connection: asyncssh.SSHClientConnection
    jumps: tuple[asyncssh.SSHClientConnection, ...] = ()

    def close(self) -> None:
        """Close them all, the innermost first."""
        for connection in (self.connection, *reversed(self.jumps)):
            connection.close()

    def abort(self) -> None:
        """Drop them all at once, saying no goodbye."""
        for connection in (self.connection, *reversed(self.jumps)):
            connection.abort()


async def log_in(address: SshAddress, options: SshOptions, name: str) -> Login:
    """Open a connection; raises HostUnreachable or HostKeyRejected, within `connect_timeout_s` a hop."""
    return await _log_in(address, options, name, 0)


async def _log_in(address: SshAddress, options: SshOptions, name: str, depth: int) -> Login:
    if depth > MAX_JUMPS:
        raise HostUnreachable(f"more than {MAX_JUMPS} jumps", host=name, hint="is there a loop in ProxyJump?")
    chosen = _settings(address, options, name)
    jump = options.jump if options.jump is not None else chosen.tunnel if isinstance(chosen.tunnel, str) else ""
    jumps: tuple[asyncssh.SSHClientConnection, ...] = ()
    if jump and jump.lower() != "none":
        before, _, last = jump.rpartition(",")
        # Each hop is a login of its own, with the same known hosts: asyncssh's own ProxyJump would lose them.
        hop = await _log_in(SshAddress.parse(last), _hop_options(options, before), f"{name} (jump {last})", depth + 1)
        jumps = (*hop.jumps, hop.connection)
    alias = chosen.config.get("HostKeyAlias")
    files = known_hosts_files(options.known_hosts, address.host, chosen)
    check = HostKeyCheck(files, options.host_keys, alias=str(alias) if alias else None)
    try:
        async with asyncio.timeout(options.connect_timeout_s):
            connection = await asyncssh.connect(
                address.host,
                config=list(config_files(options)) or None,
                tunnel=jumps[-1] if jumps else None,
                client_factory=lambda: check,
                known_hosts=check.lookup,
                **({} if chosen.config.get("HostKeyAlgorithms") else {"server_host_key_algs": HOST_KEYS}),
                **_arguments(address, options, chosen),
            )
    except BaseException as error:  # a cancellation as well: the jumps on the way are closed
        for connection in reversed(jumps):
            connection.close()
        mapped = _reason(error, check, name, address, options, chosen)
        if mapped is None:
            raise
        raise mapped from error
    read_in_blocks(getattr(connection, "_transport", None))  # asyncssh has no public name for it
    return Login(connection, jumps)


def _hop_options(options: SshOptions, before: str) -> SshOptions:
    return msgspec.structs.replace(options, jump=before or None if options.jump is None else before)


def config_files(options: SshOptions) -> tuple[str, ...]:
    """Return the OpenSSH client configuration files to read.

    Raises UsageError for a ~/.ssh/config, and for any included file, that others may write, as ssh(1) does.
    """
    if options.config_files is not None:
        check_included(options.config_files)
        return options.config_files
    path = Path(os.path.expanduser("~/.ssh/config"))
    if not path.is_absolute() or not path.exists():
        return ()
    require_own(path)
    check_included((str(path),))
    return (str(path),)


def _settings(address: SshAddress, options: SshOptions, name: str) -> asyncssh.SSHClientConnectionOptions:
    """Return the settings that the configuration files give this host. Raises UsageError for a broken file."""
    try:
        return _read_settings(address, config_files(options))
    except (ValueError, OSError) as error:
        of_a_file = isinstance(error, asyncssh.ConfigParseError) or getattr(error, "errno", None) is not None
        if not of_a_file:  # it is what is said of a user without a name: an OSError, too, from Python 3.13 on
            raise UsageError(str(error), host=name, hint="set USER, and HOME") from error
        hint = "ssh -G HOST shows how ssh reads it"
        if "Extra data at end: #" in str(error):
            hint = "ssh takes a comment behind a value, asyncssh doesn't: put it on a line of its own"
        raise UsageError(f"the ssh configuration can't be read: {error}", host=name, hint=hint) from error


def _read_settings(address: SshAddress, files: tuple[str, ...]) -> asyncssh.SSHClientConnectionOptions:
    return asyncssh.SSHClientConnectionOptions(
        host=address.host,
        config=list(files) or None,
        client_keys=None,
        known_hosts=None,
        agent_path=None,
        **({"username": address.user} if address.user else {}),
        **({"port": address.port} if address.port else {}),
    )


def known_as(address: SshAddress, options: SshOptions, name: str) -> KnownAs:
    """Return how the configuration has a host's keys looked up; raises UsageError for a broken one."""
    chosen = _settings(address, options, name)
    alias = chosen.config.get("HostKeyAlias")
    files = known_hosts_files(options.known_hosts, address.host, chosen)
    return KnownAs(files, str(chosen.host), str(alias) if alias else None)


def _arguments(address: SshAddress, options: SshOptions, chosen: asyncssh.SSHClientConnectionOptions) -> dict[str, Any]:
    """Return what asyncssh.connect is told beside host, config, tunnel and host keys."""
    arguments: dict[str, Any] = {
        "encryption_algs": list(CIPHERS),
        "compression_algs": None,
        "agent_forwarding": False,
        "gss_kex": False,
        "gss_auth": False,
        "password_auth": False,
        "kbdint_auth": False,
        "x509_trusted_certs": None,
        "connect_timeout": options.connect_timeout_s,
        "login_timeout": options.connect_timeout_s,
        "keepalive_interval": options.keepalive_s,
        "keepalive_count_max": 3,
    }
    if address.user:
        arguments["username"] = address.user
    if address.port:
        arguments["port"] = address.port
    named = chosen.config.get("IdentityFile")
    arguments |= key_arguments(options.identity_files, named, use_agent=options.use_agent)
    return arguments


def _reason(
    error: BaseException,
    check: HostKeyCheck,
    name: str,
    address: SshAddress,
    options: SshOptions,
    chosen: asyncssh.SSHClientConnectionOptions,
) -> HostUnreachable | None:
    """Return the error to show for what asyncssh, the resolver or the kernel said; None for what isn't theirs."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return check.rejection(name, error.reason)
    if isinstance(error, asyncssh.PermissionDenied):
        user = address.user or chosen.config.get("User") or getpass.getuser()
        locked = encrypted_among(options.identity_files, chosen.config.get("IdentityFile"))
        hint = "which key? see identity_files, ssh-agent, ~/.ssh/config"
        if locked:
            hint = f"an encrypted key is offered only from ssh-agent: ssh-add {' '.join(locked)}"
        return HostUnreachable(f"login refused for {user}: {error.reason}", host=name, hint=hint)
    if isinstance(error, TimeoutError):
        return HostUnreachable(
            f"no answer within {options.connect_timeout_s:g} s", host=name, hint="is the host up, and the port open?"
        )
    if isinstance(error, socket.gaierror):
        return HostUnreachable(
            f"unknown host name: {error.strerror}", host=name, hint="check the name, or the inventory's url"
        )
    if isinstance(error, UnicodeError):
        text = f"unknown host name: {address.host[:80]!r} can't be one"
        return HostUnreachable(text, host=name, hint="check the name")
    if isinstance(error, ValueError):  # a configured key, or a packet, that asyncssh can't decode
        return HostUnreachable(f"the SSH connection failed: {error}", host=name, hint="try ssh -v")
    command = None if options.jump else chosen.config.get("ProxyCommand")
    if command and isinstance(error, (asyncssh.ConnectionLost, OSError)):
        text = "the connection ended before the login: its ProxyCommand may have"
        return HostUnreachable(text, host=name, hint="run that by itself: is it there, and does it reach the host?")
    if isinstance(error, asyncssh.Error):
        many = "authentication failures" in (error.reason or "")
        return HostUnreachable(
            f"the SSH connection failed: {error.reason or type(error).__name__}",
            host=name,
            hint="ssh-agent offers every key it holds: name one, or say IdentitiesOnly" if many else "try ssh -v",
        )
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        return HostUnreachable(f"can't connect: {reason}", host=name, hint="is sshd listening there?")
    return None
