"""Which addresses may be dialed for a route."""

from __future__ import annotations

import ipaddress

from bottle.sidecars.egress.policy import Route

_ALSO_PRIVATE = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8", "100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15",
        "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
    )
)  # fmt: skip
"""Ranges beyond Python's own `is_global`: shared or site-local space, a cloud's own address, IPv6 that carries IPv4."""


def may_dial(address: str, route: Route) -> bool:
    """True for a public address, and for a private one that the route grants."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    if mapped is not None:
        found = mapped
    if any(network.version == found.version and found in network for network in route.private):
        return True
    if any(network.version == found.version and found in network for network in _ALSO_PRIVATE):
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def refusal(addresses: list[str], route: Route) -> str | None:
    """Return why a name's addresses are refused, None when each of them may be dialed.

    One private address among public ones refuses all: which of them is dialed would be up to whoever answers DNS.
    """
    if not addresses:
        return "the name has no address"
    if not all(may_dial(address, route) for address in addresses):
        return "the name leads to an address that isn't public"
    return None
