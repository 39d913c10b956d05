"""The tailnet as this machine's tailscaled sees it: itself, its peers, and which one a name means."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from opsexec.errors import UsageError
from opsexec.hosts.local_api import LocalApi, TailnetUnavailable
from opsexec.hosts.tailnet_node import Address, tailnet_address

STATUS_S = 5.0


class Peer(NamedTuple):
    """One node. `name`: its full name, given by the tailnet, never by the node itself; in lower case, without a dot."""

    id: str
    name: str
    addresses: tuple[Address, ...]
    online: bool


class Status(NamedTuple):
    """`kernel`: tailnet addresses are this machine's own (a TUN device); else tailscaled carries every connection."""

    self: Peer
    peers: tuple[Peer, ...]
    kernel: bool
    suffix: str

    def find(self, name: str) -> Peer:
        """Return the node of a name: the whole one, or its first label for nodes of this tailnet.

        Raises UsageError for a name that no node has, or that several have: none of them is guessed at.
        """
        wanted = name.rstrip(".").lower()
        everyone = (self.self, *self.peers)
        full = [peer for peer in everyone if peer.name == wanted]
        short = [peer for peer in everyone if self.suffix and peer.name == f"{wanted}.{self.suffix}"]
        found = {peer.id: peer for peer in (*full, *short)}
        if len(found) > 1:
            names = ", ".join(sorted(peer.name for peer in found.values()))
            raise UsageError(f"{name!r} means several nodes: {names}", hint="use the full name of one, or an address")
        if not found:
            raise UsageError(f"no node of the tailnet is called {name!r}", hint="`tailscale status` lists them")
        (peer,) = found.values()
        return peer


async def status(api: LocalApi, *, peers: bool = True, within_s: float = STATUS_S) -> Status:
    """Ask tailscaled; raises TailnetUnavailable, also when it isn't connected to its tailnet."""
    code, body = await api.get(f"/localapi/v0/status?peers={'true' if peers else 'false'}", within_s)
    if code != 200:
        raise TailnetUnavailable(f"tailscaled at {api.path} answered status with HTTP {code}")
    try:
        return read_status(json.loads(body))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TailnetUnavailable(f"tailscaled at {api.path} gave a status that can't be read") from error


def read_status(answer: Any) -> Status:
    """Return a `tailscale status --json` answer; raises TailnetUnavailable for one that isn't running."""
    state = answer["BackendState"]
    if state != "Running":
        raise TailnetUnavailable(f"tailscaled is not connected ({state})", hint="run `tailscale up`")
    tailnet = answer.get("CurrentTailnet") or {}
    return Status(
        self=_peer(answer["Self"]),
        peers=tuple(_peer(each) for each in (answer.get("Peer") or {}).values()),
        kernel=bool(answer["TUN"]),
        suffix=str(tailnet.get("MagicDNSSuffix") or "").strip(".").lower(),
    )


def _peer(node: Any) -> Peer:
    addresses = [tailnet_address(str(each)) for each in node.get("TailscaleIPs") or ()]
    return Peer(
        id=str(node["ID"]),
        name=str(node.get("DNSName") or "").rstrip(".").lower(),
        addresses=tuple(each for each in addresses if each is not None),
        online=bool(node.get("Online")),
    )
