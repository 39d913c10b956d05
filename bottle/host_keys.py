"""The host keys that a git upstream is held to: the manifest's `host_key`, else what the operator's known hosts hold.

They are read once, when the plan is made, so that what the summary shows is what the gate gets: nothing that an
upstream says of itself is ever taken. Which files these are, and under what name a host is known there, is for the
operator's ssh configuration to say.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bottle.manifest.kinds import Repository
from bottle.manifest.names import Upstream

CONFIG = "~/.ssh/config"
SSH_PORT = 22
MANIFEST = "the manifest"


@dataclass(frozen=True)
class HostKeys:
    """What one upstream is held to. `where`: who says so, for people. `problem`: why there is no key, empty otherwise.

    `keys`: each as known_hosts has it behind the names; a manifest's as it stands there.
    """

    keys: tuple[str, ...] = ()
    where: str = MANIFEST
    problem: str = ""

    @property
    def told(self) -> str:
        """The fingerprints and where they come from, or why there are none."""
        if self.problem:
            return f"none: {self.problem}"
        return f"{', '.join(fingerprint(each) for each in self.keys)} from {self.where}"


def declared(repository: Repository) -> HostKeys | None:
    """Return the key that a manifest names, None where it names none."""
    return HostKeys((repository.host_key,)) if repository.host_key else None


def known(upstream: Upstream, files: Sequence[str] | None = None) -> HostKeys:
    """Return every key that these files hold for exactly this host and port, hashed names too.

    `files`: None = those of the operator's ssh configuration. With its HostKeyAlias that name alone is looked up; what
    is known of its HostName counts where nothing is known of the host itself.
    A revoked key is none, and neither is a certificate authority's. A file that can't be read may hold a revocation:
    then there are no keys at all.
    """
    from opsexec.errors import UsageError

    if files is not None:
        return _known(files, [address(upstream)], address(upstream))
    try:
        files, names = _configured(upstream)
    except UsageError as error:
        return HostKeys(where=CONFIG, problem=error.message)
    return _known(files, names, address(upstream))


def _configured(upstream: Upstream) -> tuple[list[str], list[str]]:
    """Return the files, and the names to look for, of the operator's ssh configuration; raises UsageError."""
    from opsexec.hosts.ssh_login import SshAddress, SshOptions, known_as

    asked = known_as(SshAddress(upstream.host, upstream.user, upstream.port), SshOptions(), upstream.host)
    named = [_place(host, upstream.port) for host in (upstream.host, asked.host)]
    return [file for file in asked.files if file != os.devnull], [asked.alias] if asked.alias else named


def _known(files: Sequence[str], names: Sequence[str], own: str) -> HostKeys:
    from opsexec.hosts.known_hosts import HostKeyCheck

    found: dict[str, dict[str, str]] = {name: {} for name in names}
    revoked: set[str] = set()
    authority = False
    for name in found:
        for file in files:
            check = HostKeyCheck((file,), "strict")
            # By its whole name: asked for a port, the lookup would go on to the host's key at any port.
            check.lookup(name, "", None)
            if check.unreadable is not None:
                return HostKeys(where=file, problem=f"the known hosts can't be read ({check.unreadable})")
            authority = authority or check.certified
            revoked |= {_line(key.export_public_key("openssh")) for key in check.revoked}
            for key in check.known:
                found[name].setdefault(_line(key.export_public_key("openssh")), file)
    looked, asked = " and ".join(files) or "no file", " and ".join(found)
    for name, lines in found.items():
        if not lines:
            continue
        keys = tuple(sorted(line for line in lines if line not in revoked))
        if not keys:
            return HostKeys(where=looked, problem=f"{looked}: what is known of {name} is revoked")
        where = " and ".join(file for file in files if file in {lines[each] for each in keys})
        return HostKeys(keys, where if name == own else f"{where}, as {name}")
    if authority:
        return HostKeys(where=looked, problem=f"{looked}: of {asked} a certificate authority is known, and no key")
    return HostKeys(where=looked, problem=f"{looked}: no key of {asked} is known")


def address(upstream: Upstream) -> str:
    """Return how known_hosts names an upstream (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return _place(upstream.host, upstream.port)


def _place(host: str, port: int) -> str:
    return host if port == SSH_PORT else f"[{host}]:{port}"


def fingerprint(key: str) -> str:
    """Return `SHA256:... (type)` as ssh-keygen(1) shows it; of a whole line of known_hosts its marker, too."""
    words = key.split()
    marker = f" {words[0]}" if words and words[0].startswith("@") else ""
    for kind, blob in pairwise(words):
        if not kind.startswith(("ssh-", "ecdsa-", "sk-")):
            continue
        try:
            digest = hashlib.sha256(base64.b64decode(blob, validate=True)).digest()
        except (binascii.Error, ValueError):
            break
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')} ({kind}{marker})"
    return "what can't be read as a key"


def _line(exported: bytes) -> str:
    return " ".join(exported.decode("ascii", "replace").split()[:2])
