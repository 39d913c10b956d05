"""From HOST on the command line to the executors it means, each with what may be asked of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from opsexec.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.capability import CapabilitySet
    from opsexec.host_executor import HostExecutor
    from opsexec.inventory import InventoryHost


class Target(NamedTuple):
    """One host of a command line, and the set its executor is given."""

    host: InventoryHost
    capabilities: CapabilitySet

    @property
    def name(self) -> str:
        """How output, errors and audit name it."""
        return self.host.name


async def find_targets(args: argparse.Namespace) -> list[Target]:
    """Return the hosts that `args.host` selects; raises one of the UsageErrors."""
    from opsexec.inventory import host_from_url, is_url

    if is_url(args.host):
        hosts = [_named(host_from_url(args.host))]
    else:
        hosts = await _select(args.host, args.inventory)
    asked = _asked_for(args.cap)
    return [Target(host, _grants(host, asked)) for host in hosts]


async def find_target(args: argparse.Namespace) -> Target:
    """Return the one host that `args.host` selects; raises UsageError when it selects more."""
    targets = await find_targets(args)
    if len(targets) > 1:
        raise UsageError(f"{args.host!r} selects {len(targets)} hosts, and this takes one", hint="name one of them")
    return targets[0]


async def _select(pattern: str, inventory_file: str | None) -> list[InventoryHost]:
    from opsexec.inventory import Inventory

    inventory = await Inventory.load(inventory_file)
    if inventory.file is None:
        raise UsageError(
            f"{pattern!r} names no host: there is no inventory",
            hint=f"name a file with -i, or write a URL, like ssh://{_host_like(pattern)}",
        )
    return inventory.select(pattern)


def _host_like(pattern: str) -> str:
    """Return the pattern where it could be a host's name, else an example."""
    return pattern if all(c.isalnum() or c in ".-@_" for c in pattern) else "user@host"


def _asked_for(texts: list[str] | None) -> CapabilitySet | None:
    """Return the set that --cap asks for; as which user is not narrowed by it."""
    from opsexec.capability import CapabilitySet

    return None if texts is None else CapabilitySet.of(*texts, run_as=["*"])


def _grants(host: InventoryHost, asked: CapabilitySet | None) -> CapabilitySet:
    """Return what the inventory grants, narrowed to what the command line asks for."""
    if asked is not None and host.capabilities is None and host.run_as is None:
        return asked
    return host.capability_set() if asked is None else host.capability_set().intersect(asked)


def _named(host: InventoryHost) -> InventoryHost:
    """Return a host of a URL under the name to show: `local:` reads badly before a colon."""
    import msgspec

    return msgspec.structs.replace(host, name="local") if host.url.startswith("local:") else host


def open_executor(target: Target, args: argparse.Namespace) -> HostExecutor:
    """Return the target's executor; the command line's SSH options win over the inventory's."""
    return open_host(target.host, target.capabilities, args)


def open_host(host: InventoryHost, capabilities: CapabilitySet, args: argparse.Namespace) -> HostExecutor:
    """Return an executor for a host of the inventory."""
    from opsexec.connect import connect

    if args.ssh_config is not None:
        _must_be_readable(args.ssh_config, "-F")
    config_files = [args.ssh_config] if args.ssh_config is not None else list(host.config_files) or None
    return connect(
        host.url,
        capabilities=capabilities,
        name=host.name,
        identity_files=args.identity or list(host.identity_files) or None,
        known_hosts=args.known_hosts or host.known_hosts,
        host_keys="accept-new" if args.accept_new or host.host_keys == "accept-new" else "strict",
        config_files=config_files,
        jump=args.jump or host.jump,
        connect_timeout_s=args.connect_timeout,
        listener="cli",
    )


def _must_be_readable(file: str, option: str) -> None:
    if not os.access(file, os.R_OK):
        raise UsageError(f"{option} {file} can't be read", hint="name an existing file")
