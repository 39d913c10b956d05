"""Which hosts of a run are this very machine, also under another name; nothing is asked of the network."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator

from opsexec.errors import UsageError
from opsexec.inventory import InventoryHost

_HERE = re.compile(r"local:|agent\+unix:|(agent\+)?(ssh|tcp)://([^@/]*@)?(localhost|127[.0-9]+|\[::1\])(?![^:/])")
_REMOTE = re.compile(r"(?:agent\+)?(ssh|tcp)://([^/]+)")
HOSTS = "/etc/hosts"


def is_plainly_here(host: InventoryHost) -> bool:
    """True for a URL that says it itself."""
    return _HERE.match(host.url) is not None


def is_here(host: InventoryHost) -> bool:
    """True also for one of this machine's own names or addresses, and for an alias of one in the ssh configuration."""
    found = _REMOTE.match(host.url)
    if found is None:
        return is_plainly_here(host)
    from opsexec.hosts.ssh_login import SshAddress, SshOptions, known_as

    try:
        address = SshAddress.parse(found[2])
        name = address.host
        if found[1] == "ssh":
            name = known_as(address, SshOptions(config_files=host.config_files or None), host.name).host
    except UsageError:  # what is wrong with it is told when it is dialed
        return False
    return _is_own_name(name) or any(map(_is_own_address, (name, *_in_hosts_file(name))))


def _is_own_name(name: str) -> bool:
    plain = name.lower().rstrip(".")
    own = socket.gethostname().lower()
    return plain in (own, own.partition(".")[0], "localhost") or plain.endswith(".localhost")


def _is_own_address(text: str) -> bool:
    """True where the kernel lets a socket have it: a bind sends nothing."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((text, 0))
    except OSError:
        return False
    return True


def _in_hosts_file(name: str) -> Iterator[str]:
    try:
        with open(HOSTS, encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        if name.lower() in (each.lower() for each in names):
            yield address
