"""Which keys a login offers: those of files, the agent's, and those of encrypted files that only the agent can use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from opsexec.errors import UsageError
from opsexec.hosts.asyncssh_loader import asyncssh

_BESIDE_NONE = tuple(f"~/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa", "ed25519_sk", "ecdsa_sk"))
"""What asyncssh tries where no file is named (`_DEFAULT_KEY_FILES`), but for kinds that nobody makes any more."""


class EncryptedKey(UsageError):
    """A key file that wants a passphrase, which nobody is asked for."""


def key_arguments(files: Sequence[str] | None, configured: object, *, use_agent: bool) -> dict[str, Any]:
    """Return what asyncssh.connect is told about keys: `files` as named for this login, else what the config names.

    A named file that is encrypted stands for the agent's key of that name, as with ssh(1); the agent's others are
    offered only where no file is named. Raises UsageError for a named file that can't be used.
    """
    arguments: dict[str, Any] = {} if use_agent else {"agent_path": None}
    if files is not None:
        own, held = _split(files, use_agent=use_agent and bool(os.environ.get("SSH_AUTH_SOCK")))
        if held:
            return {"client_keys": [*own, *held], "agent_identities": held, "ignore_encrypted": True}
        # An empty list would be asyncssh's word for "the default ones".
        return arguments | {"client_keys": own or None, "agent_path": None}
    if isinstance(configured, list):
        there = [file for file in map(str, configured) if os.path.exists(os.path.expanduser(file))]
        if len(there) < len(configured):  # ssh(1) passes over those that are missing
            arguments |= {"client_keys": there, "ignore_encrypted": True}
    return arguments


def _split(files: Sequence[str], *, use_agent: bool) -> tuple[list[asyncssh.SSHKeyPair], list[str]]:
    """Return the keys that can be loaded, and the encrypted files that the agent may hold."""
    own: list[asyncssh.SSHKeyPair] = []
    held: list[str] = []
    for file in files:
        try:
            own.extend(load_keys((file,)))
        except EncryptedKey:
            path = os.path.expanduser(file)
            if not (use_agent and _has_public_half(path)):
                raise
            held.append(path)
    return own, held


def _has_public_half(path: str) -> bool:
    try:
        asyncssh.read_public_key(path)
    except (asyncssh.KeyImportError, OSError, ValueError):
        return False
    return True


def load_keys(files: Sequence[str]) -> list[asyncssh.SSHKeyPair]:
    """Load identity files once for all hosts; raises UsageError for one that can't be read."""
    pairs: list[asyncssh.SSHKeyPair] = []
    for file in files:
        path = os.path.expanduser(file)
        try:
            pairs.extend(_load(path, os.stat(path).st_mtime_ns))
        except (asyncssh.KeyImportError, OSError, ValueError) as error:
            if isinstance(error, asyncssh.KeyEncryptionError) or "assphrase" in str(error):
                raise EncryptedKey(
                    f"the key {file} is encrypted", hint=f"start ssh-agent, then: ssh-add {file}"
                ) from error
            raise UsageError(f"the key {file} can't be used: {error}", hint="name a private key file") from error
    return pairs


@lru_cache(maxsize=64)
def _load(path: str, stamp: int) -> list[asyncssh.SSHKeyPair]:
    return list(asyncssh.load_keypairs(path))


def encrypted_among(files: Sequence[str] | None, configured: object) -> list[str]:
    """Return the key files that a refused login passed over because they are encrypted."""
    named = files if files is not None else list(map(str, configured)) if isinstance(configured, list) else _BESIDE_NONE
    found = []
    for file in named:
        try:
            load_keys((file,))
        except EncryptedKey:
            found.append(file)
        except UsageError:
            continue  # missing, or no key at all: an encrypted one is what is looked for
    return found
