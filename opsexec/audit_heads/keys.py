"""The keys that may vouch for a host's audit: its host keys, from known hosts or from a file of public keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from opsexec.audit_heads.head import NAMESPACE
from opsexec.errors import UsageError

if TYPE_CHECKING:
    from asyncssh import SSHKey

KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
SIGNER = "host"


class HostKeys:
    """Some host's keys. `where`: what they were found in, for people."""

    def __init__(self, keys: list[SSHKey], where: str) -> None:
        self.keys = keys
        self.where = where

    def vouch(self, statement: str, signature: str) -> bool:
        """True when one of the keys has signed the statement as the head of an audit chain."""
        from asyncssh.sshsig import import_allowed_signers, validate_sshsig

        # a line without `namespaces=` would let a signature over something else pass
        lines = [f'{SIGNER} namespaces="{NAMESPACE}" {_text(key)}' for key in self.keys]
        try:
            signers = import_allowed_signers("\n".join(lines))
            return validate_sshsig(statement.encode(), signature.encode(), SIGNER, signers)
        except (ValueError, UnicodeError):
            return False


def find_keys(what: str, host: str) -> HostKeys:
    """Return the keys that `what` stands for; raises UsageError where there are none.

    `what`: a file of known hosts, of which `host`'s keys count, or of public keys; or else a host's own name, as the
    usual known hosts have it.
    """
    file = Path(os.path.expanduser(what))
    if file.is_file():
        keys = _public_keys(file)
        if keys:
            return HostKeys(keys, str(file))
        return _known([file], host)
    if "/" in what:
        raise UsageError(f"there is no file {what}", hint="name a file of known hosts or a public key, or a host")
    return _known([path for path in (Path(os.path.expanduser(name)) for name in KNOWN_HOSTS) if path.is_file()], what)


def _known(files: list[Path], host: str) -> HostKeys:
    from opsexec.hosts.known_hosts import HostKeyCheck

    check = HostKeyCheck([str(file) for file in files], "strict")
    name, port = _split(host)
    found = check.lookup(name, "", port)
    if check.unreadable is not None:
        raise UsageError(f"the known hosts can't be read: {check.unreadable}", hint="mend the file")
    keys = [key for key in found[0] if key not in check.revoked]
    where = ", ".join(map(str, files)) or "none of the usual known hosts"
    if not keys:
        hint = "name it as it stands there with --host, or a key's file with --key"
        raise UsageError(f"no key of {host} is known (looked in: {where})", hint=hint)
    return HostKeys(keys, where)


def _split(host: str) -> tuple[str, int | None]:
    """Return the name and port of `name` or `[name]:port`."""
    name, bracket, port = host.removeprefix("[").partition("]:")
    return (name, int(port)) if host.startswith("[") and bracket and port.isdigit() else (host, None)


def _public_keys(file: Path) -> list[SSHKey]:
    """Return the keys of a file that holds one public key a line; none where a line is something else."""
    from opsexec.hosts.asyncssh_loader import asyncssh

    keys = []
    try:
        text = file.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}", hint="name another") from error
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            keys.append(asyncssh.import_public_key(line))
        except (ValueError, asyncssh.KeyImportError):
            return []
    return keys


def _text(key: SSHKey) -> str:
    return key.export_public_key("openssh").decode().strip()
