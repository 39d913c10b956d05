"""What egress enforces: the route table as data."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What may be asked. TRACE and TRACK echo the injected credential; CONNECT inside a tunnel is another tunnel."""

PORT = 443


@dataclass(frozen=True)
class Route:
    """One host. `prefixes` None: every path. `slot`: the token injected here, by `scheme`.

    `methods` None: each of METHODS. `query` None: any; else the names of the parameters that a query may have.
    """

    host: str
    prefixes: tuple[str, ...] | None = None
    scheme: str | None = None
    slot: str | None = None
    private: tuple[Network, ...] = ()
    methods: frozenset[str] | None = None
    query: frozenset[str] | None = None


@dataclass(frozen=True)
class Policy:
    """Every route, by host."""

    routes: Mapping[str, Route]

    def route(self, host: str) -> Route | None:
        """Return the route of exactly this host, which is in lower case."""
        return self.routes.get(host)


def read_table(table: Iterable[Mapping[str, Any]]) -> Policy:
    """Return the policy a rendered route table stands for; raises ValueError for one of another shape."""
    try:
        return _read(table)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"no table of routes: {error}") from error


def _read(table: Iterable[Mapping[str, Any]]) -> Policy:
    routes: dict[str, Route] = {}
    for row in table:
        if set(row) - {"methods", "query"} != {"host", "path_allowlist", "scheme", "slot", "private"}:
            raise ValueError(f"a route has the keys {sorted(row)}")
        host, prefixes, scheme, slot = row["host"], row["path_allowlist"], row["scheme"], row["slot"]
        if not isinstance(host, str) or host != host.lower() or not host or host in routes:
            raise ValueError(f"host {host!r} is no lower-case name, or stands twice")
        if prefixes is not None and (not prefixes or not all(isinstance(each, str) for each in prefixes)):
            raise ValueError(f"path_allowlist of {host} is not a list of paths")
        if (scheme is None) != (slot is None) or scheme not in (None, "Bearer", "token"):
            raise ValueError(f"scheme and slot of {host} don't go together")
        methods, query = row.get("methods"), row.get("query")
        if methods is not None and (not methods or not METHODS.issuperset(methods)):
            raise ValueError(f"methods of {host} are not some of {sorted(METHODS)}")
        if query is not None and not all(isinstance(each, str) for each in query):
            raise ValueError(f"query of {host} is not a list of names")
        routes[host] = Route(
            host=host,
            prefixes=None if prefixes is None else tuple(prefixes),
            scheme=scheme,
            slot=slot,
            private=tuple(ipaddress.ip_network(each) for each in row["private"]),
            methods=None if methods is None else frozenset(methods),
            query=None if query is None else frozenset(query),
        )
    return Policy(routes)
