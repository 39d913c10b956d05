"""The effective egress of a bottle: provider's and manifest's routes as one list, each token in a slot. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bottle.manifest.kinds import Route
from bottle.providers.base import ProviderRoute, TokenSource

SLOT = "EGRESS_TOKEN_{}"
Scheme = Literal["Bearer", "token"]


@dataclass(frozen=True)
class EffectiveRoute:
    """One host as egress enforces it. `slot`: which of the tokens it injects, by `scheme`."""

    host: str
    path_allowlist: tuple[str, ...] | None
    scheme: Scheme | None
    slot: str | None
    tls_passthrough: bool
    private: tuple[str, ...]
    owner: Literal["provider", "manifest"]
    methods: tuple[str, ...] | None = None
    query: tuple[str, ...] | None = None

    def rendered(self) -> dict[str, Any]:
        """Return what the sidecar is told: no token, and no name of the launcher's variables."""
        found: dict[str, Any] = {
            "host": self.host,
            "path_allowlist": None if self.path_allowlist is None else list(self.path_allowlist),
            "scheme": self.scheme,
            "slot": self.slot,
            "private": list(self.private),
        }
        if self.methods is not None:
            found["methods"] = list(self.methods)
        if self.query is not None:
            found["query"] = list(self.query)
        return found

    @property
    def line(self) -> str:
        """The route in the preflight, all of it: `host [auth:Bearer] [GET HEAD] [paths: /v1] [query: page]`."""
        named = [f"auth:{self.scheme}"] if self.scheme else []
        named += [" ".join(self.methods)] if self.methods is not None else []
        named += [f"paths: {' '.join(self.path_allowlist)}"] if self.path_allowlist is not None else []
        named += [f"query: {' '.join(self.query) or 'none'}"] if self.query is not None else []
        named += [f"private: {' '.join(self.private)}"] if self.private else []
        named += ["pipelock: TLS unread"] if self.tls_passthrough else []
        return " ".join([self.host, *(f"[{each}]" for each in named)])


@dataclass(frozen=True)
class EffectiveEgress:
    """All routes in order, where each slot's token comes from, and what the operator should know."""

    routes: tuple[EffectiveRoute, ...]
    slots: dict[str, TokenSource]
    warnings: tuple[str, ...] = ()

    def table(self) -> list[dict[str, Any]]:
        """Return the rendered route table."""
        return [route.rendered() for route in self.routes]


def effective_egress(provided: Sequence[ProviderRoute], manifest: Sequence[Route]) -> EffectiveEgress:
    """Merge: the provider owns its hosts outright, manifest routes for other hosts follow in order."""
    owned = {each.route.host for each in provided}
    warnings = []
    wanted: list[tuple[Route, Scheme | None, TokenSource | None, Literal["provider", "manifest"]]] = [
        (each.route, each.scheme, each.token, "provider") for each in provided
    ]
    for route in manifest:
        if route.host in owned:
            if lost := _lost(route):
                text = f"{route.host} belongs to the provider: the manifest's {' and '.join(lost)} for it won't apply"
                warnings.append(text)
            continue
        auth = route.auth
        token = None if auth is None else TokenSource("variable", auth.token_ref)
        wanted.append((route, None if auth is None else auth.scheme, token, "manifest"))
    slots: dict[TokenSource, str] = {}
    routes = []
    for route, scheme, token, owner in wanted:
        slot = None if token is None else slots.setdefault(token, SLOT.format(len(slots)))
        routes.append(
            EffectiveRoute(
                host=route.host,
                path_allowlist=route.path_allowlist,
                scheme=scheme,
                slot=slot,
                tls_passthrough=route.pipelock.tls_passthrough,
                private=route.pipelock.ssrf_ip_allowlist,
                owner=owner,
                methods=route.methods,
                query=route.query_allowlist,
            )
        )
    return EffectiveEgress(tuple(routes), {slot: token for token, slot in slots.items()}, tuple(warnings))


def _lost(route: Route) -> list[str]:
    named = {
        "path_allowlist": route.path_allowlist is not None,
        "auth": route.auth is not None,
        "methods": route.methods is not None,
        "query_allowlist": route.query_allowlist is not None,
        "pipelock": route.pipelock != type(route.pipelock)(),
    }
    return [name for name, given in named.items() if given]
