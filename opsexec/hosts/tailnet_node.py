"""Who is at a tailnet address: what `whois` says of a node, and which nodes are nobody here."""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from opsexec.hosts.local_api import LocalApi, TailnetUnavailable

WHOIS_S = 5.0
RANGES = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
"""Where tailnet addresses lie (tailscale.com/net/tsaddr: CGNATRange, TailscaleULARange)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*\Z")
_LOGIN = re.compile(r"[^\s:,\x00-\x1f\x7f-\xa0\u2028\u2029]{1,320}\Z")
TAGGED = "tagged-devices"
"""The login that every tagged node shows: it is nobody's."""

_NO_EXPIRY = "0001-01-01T00:00:00Z"
"""Go's zero time: a node whose key doesn't expire."""


class Node(NamedTuple):
    """A node that is somebody. `principal`: `tailnet:<login>`, or `tailnet:tag:a,tag:b` with its tags in order."""

    principal: str
    id: str
    name: str
    addresses: tuple[Address, ...]


class Nobody(Exception):
    """There is no identity for an address; the message says why, in words for the audit."""


def tailnet_address(text: str) -> Address | None:
    """Return an address of the tailnet's ranges; None for every other text, and for one that names an interface."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address if "%" not in text and any(address in each for each in RANGES) else None


def endpoint(address: Address, port: int) -> str:
    """Return IP:port as the LocalAPI reads it."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


async def whois(api: LocalApi, address: Address, port: int, *, within_s: float = WHOIS_S) -> Node:
    """Return the node behind one end of a TCP connection; raises Nobody, and TailnetUnavailable when none can say."""
    query = f"/localapi/v0/whois?addr={quote(endpoint(address, port), safe='')}&proto=tcp"
    status, body = await api.get(query, within_s)
    if status == 404:
        raise Nobody(f"{endpoint(address, port)} is no node's")
    if status != 200:
        raise TailnetUnavailable(f"tailscaled at {api.path} answered whois with HTTP {status}")
    return read_whois(body, datetime.now(UTC))


def read_whois(body: bytes, now: datetime) -> Node:
    """Return the node of a whois answer; raises Nobody for one that isn't somebody here, and what can't be read."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Nobody("the whois answer is not JSON") from error
    try:
        return _node(answer, now)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Nobody("the whois answer is not one of a node") from error


def _node(answer: Any, now: datetime) -> Node:
    node = answer["Node"]
    name = str(node["Name"]).rstrip(".").lower()
    shown = name or str(node["ID"])
    _require_own(node, shown)
    _require_current(node, shown, now)
    addresses = tuple(ipaddress.ip_interface(each).ip for each in node["Addresses"])
    stable = node["StableID"]
    if not addresses or not isinstance(stable, str) or not stable:
        raise Nobody(f"{shown} has no address or no id")
    return Node(_principal(node, answer["UserProfile"], shown), stable, name, addresses)


def _require_own(node: Any, shown: str) -> None:
    """Raise Nobody for nodes of other tailnets, and those that this one doesn't vouch for."""
    if node.get("Sharer"):
        raise Nobody(f"{shown} is shared in from another tailnet")
    if (node.get("Hostinfo") or {}).get("ShareeNode"):
        raise Nobody(f"{shown} is of another tailnet, which this one shares with")
    if node.get("UnsignedPeerAPIOnly") or node.get("IsWireGuardOnly") or node.get("IsJailed"):
        raise Nobody(f"{shown} is not a full member of the tailnet")


def _require_current(node: Any, shown: str, now: datetime) -> None:
    expiry = node.get("KeyExpiry") or _NO_EXPIRY
    if node.get("Expired") or (expiry != _NO_EXPIRY and _time(expiry) <= now):
        raise Nobody(f"the key of {shown} has expired")


def _time(text: str) -> datetime:
    """Parse RFC 3339 as Go writes it: up to nine digits of a second."""
    found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found


def _principal(node: Any, profile: Any, shown: str) -> str:
    tags = node.get("Tags") or []
    if tags:
        if not isinstance(tags, list) or not all(isinstance(tag, str) and _TAG.match(tag) for tag in tags):
            raise Nobody(f"{shown} has a tag that is none")
        return "tailnet:" + ",".join(sorted(set(tags)))
    login = profile["LoginName"]
    if not isinstance(login, str) or login == TAGGED or not is_login(login) or not profile["ID"]:
        raise Nobody(f"{shown} has no user and no tag")
    return f"tailnet:{login}"


def is_login(text: str) -> bool:
    """Whether a text can be a user's login: not a tag, not several things at once, nothing unseen in it."""
    return _LOGIN.match(text) is not None and text != TAGGED


def is_tag(text: str) -> bool:
    """Whether a text is a tag (Tailscale's own rule: letters, digits and dashes, a letter first)."""
    return _TAG.match(text) is not None
