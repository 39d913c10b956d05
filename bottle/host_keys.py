"""The host keys that a git upstream is held to: the manifest's `host_key`, else what the operator's known hosts hold.

They are read once, when the plan is made, so that what the summary shows is what the gate gets: nothing that an
upstream says of itself is ever taken.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bottle.manifest.kinds import Repository
from bottle.manifest.names import Upstream

KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
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


def known(upstream: Upstream, files: Sequence[str] = KNOWN_HOSTS) -> HostKeys:
    """Return every key that these files hold for exactly this host and port, hashed names too.

    A revoked key is none, and neither is a certificate authority's. A file that can't be read may hold a revocation:
    then there are no keys at all.
    """
    from opsexec.hosts.known_hosts import HostKeyCheck

    name = address(upstream)
    found: dict[str, str] = {}
    revoked: set[str] = set()
    authority = False
    for file in files:
        check = HostKeyCheck((file,), "strict")
        # By its whole name: asked for a port, the lookup would go on to the host's key at any port.
        check.lookup(name, "", None)
        if check.unreadable is not None:
            return HostKeys(where=file, problem=f"the known hosts can't be read ({check.unreadable})")
        authority = authority or check.certified
        revoked |= {_line(key.export_public_key("openssh")) for key in check.revoked}
        for key in check.known:
            found.setdefault(_line(key.export_public_key("openssh")), file)
    keys = tuple(sorted(line for line in found if line not in revoked))
    if keys:
        return HostKeys(keys, " and ".join(file for file in files if file in {found[each] for each in keys}))
    looked = " and ".join(files)
    if found:
        return HostKeys(where=looked, problem=f"{looked}: what is known of {name} is revoked")
    if authority:
        return HostKeys(where=looked, problem=f"{looked}: of {name} a certificate authority is known, and no key")
    return HostKeys(where=looked, problem=f"{looked}: no key of {name} is known")


def address(upstream: Upstream) -> str:
    """Return how known_hosts names an upstream (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return upstream.host if upstream.port == SSH_PORT else f"[{upstream.host}]:{upstream.port}"


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
