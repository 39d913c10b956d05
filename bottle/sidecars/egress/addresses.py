"""Which addresses may be dialed for a route."""

from __future__ import annotations

import ipaddress

from bottle.sidecars.egress.policy import Route

_PRIVATE = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "::/127", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
        "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
)  # fmt: skip
"""What is no public address: IANA's special-purpose registries, a cloud's own address, IPv6 that carries IPv4."""


def is_private(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """True for a network that holds any address which isn't public."""
    if any(each.version == network.version and each.overlaps(network) for each in _PRIVATE):
        return True
    return not network.is_global or network.is_multicast or network.is_reserved


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
    return not is_private(ipaddress.ip_network(found))


def refusal(addresses: list[str], route: Route) -> str | None:
    """Return why a name's addresses are refused, None when each of them may be dialed.

    One private address among public ones refuses all: which of them is dialed would be up to whoever answers DNS.
    """
    if not addresses:
        return "the name has no address"
    if not all(may_dial(address, route) for address in addresses):
        return "the name leads to an address that isn't public"
    return None
