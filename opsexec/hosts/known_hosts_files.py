"""Which files of known hosts a login reads: those that are named, else the configuration's, else ssh(1)'s own."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from opsexec.errors import UsageError

if TYPE_CHECKING:
    from opsexec.hosts.asyncssh_loader import asyncssh

_TOKEN = re.compile(r"%(.?)|\$\{(\w+)\}")


def known_hosts_files(
    named: tuple[str, ...] | None, host: str, chosen: asyncssh.SSHClientConnectionOptions
) -> tuple[str, ...]:
    """Return the known hosts files, the one that accept-new writes to first; `host` as the caller wrote it.

    Raises UsageError for a token of ssh_config(5) that isn't filled in here.
    """
    if named is not None:
        return named
    own = [_filled(file, host, chosen) for file in _configured(chosen, "UserKnownHostsFile", "~/.ssh/known_hosts")]
    # Without a file of one's own, accept-new must not write to one that speaks for the whole machine.
    return (*(own or [os.devnull]), *_configured(chosen, "GlobalKnownHostsFile", "/etc/ssh/ssh_known_hosts"))


def _configured(chosen: asyncssh.SSHClientConnectionOptions, key: str, default: str) -> list[str]:
    """Return the files that the configuration names; `none` is ssh_config(5)'s word for no file."""
    files = chosen.config.get(key)
    return [str(file) for file in files if file != "none"] if isinstance(files, list) else [default]


def _filled(file: str, host: str, chosen: asyncssh.SSHClientConnectionOptions) -> str:
    """Fill in the tokens and variables that ssh_config(5) allows in UserKnownHostsFile, but for %C and %j."""
    values: dict[str, Callable[[], str]] = {
        "%": lambda: "%",
        "d": lambda: os.path.expanduser("~"),
        "h": lambda: str(chosen.config.get("Hostname") or host),
        "i": lambda: str(os.getuid()),
        "k": lambda: str(chosen.config.get("HostKeyAlias") or host),
        "L": lambda: socket.gethostname().partition(".")[0],
        "l": socket.gethostname,
        "n": lambda: host,
        "p": lambda: str(chosen.config.get("Port") or 22),
        "r": lambda: str(chosen.config.get("User") or getpass.getuser()),
        "u": getpass.getuser,
    }

    def value(found: re.Match[str]) -> str:
        filled = os.environ.get(found[2]) if found[2] else values[found[1]]() if found[1] in values else None
        if filled is None:
            raise UsageError(
                f"{found[0]} in UserKnownHostsFile {file} can't be filled in", hint="name the file by known_hosts"
            )
        return filled

    return _TOKEN.sub(value, file)
