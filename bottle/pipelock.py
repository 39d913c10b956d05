"""The second hop: pipelock's configuration, rendered from one closed model. Pure.

Key names and their meaning are pipelock's own (its configuration reference, version 1 of the format).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bottle.egress import EffectiveRoute
from bottle.manifest.names import host_name

LARGEST = 256 << 20
"""Bytes of one body that it reads before it goes on; a larger one is refused: such hosts are for `tls_passthrough`."""


class Closed(BaseModel):
    """Base of every part: nothing unknown, nothing coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text, strict=True))


Host = Annotated[str, AfterValidator(host_name)]
Network = Annotated[str, AfterValidator(_network)]
Hosts = Annotated[tuple[Host, ...], Field(strict=False)]


class Monitoring(Closed):
    """What is told by its looks stays out: a bottle's own values are known, and egress looks for these."""

    max_url_length: int = 16384
    entropy_threshold: float = 8.0
    subdomain_entropy_threshold: float = 8.0
    max_requests_per_minute: int = 60000
    blocklist: tuple[Host, ...] = ()


class FetchProxy(Closed):
    """Its own listener; the address is given at its start."""

    monitoring: Monitoring = Monitoring()


class ForwardProxy(Closed):
    """CONNECT, for as long as a long answer takes."""

    enabled: Literal[True] = True
    max_tunnel_seconds: int = 86400
    idle_timeout_seconds: int = 900
    sni_verification: Literal[True] = True


class Dlp(Closed):
    """Credentials by their form. Its own environment holds none."""

    scan_env: Literal[False] = False
    include_defaults: bool = True


class RequestBodyScanning(Closed):
    """Bodies and headers; what egress injected is meant to be there."""

    enabled: bool = True
    action: Literal["block", "warn"] = "block"
    max_body_bytes: Annotated[int, Field(gt=0)] = LARGEST
    scan_headers: bool = True
    header_mode: Literal["all"] = "all"
    ignore_headers: tuple[str, ...] = ("Authorization",)


class TlsInterception(Closed):
    """Every host but those is decrypted, under an authority of the bundle's own that egress alone trusts."""

    enabled: bool = True
    ca_cert: Literal["/tmp/pipelock/ca.pem"] = "/tmp/pipelock/ca.pem"
    ca_key: Literal["/tmp/pipelock/ca-key.pem"] = "/tmp/pipelock/ca-key.pem"
    passthrough_domains: Hosts = ()
    max_response_bytes: Annotated[int, Field(gt=0)] = LARGEST


class Ssrf(Closed):
    """Private addresses that any route grants; egress holds each route to its own before it asks."""

    ip_allowlist: Annotated[tuple[Network, ...], Field(strict=False)] = ()


class SeedPhraseDetection(Closed):
    """Wallet words."""

    enabled: bool = True


class Pipelock(Closed):
    """The whole configuration: strict, enforced, and nothing allowed but the effective routes."""

    version: Literal[1] = 1
    mode: Literal["strict"] = "strict"
    enforce: Literal[True] = True
    api_allowlist: Hosts
    fetch_proxy: FetchProxy = FetchProxy()
    forward_proxy: ForwardProxy = ForwardProxy()
    dlp: Dlp = Dlp()
    request_body_scanning: RequestBodyScanning = RequestBodyScanning()
    tls_interception: TlsInterception = TlsInterception()
    ssrf: Ssrf = Ssrf()
    seed_phrase_detection: SeedPhraseDetection | None = None


def model(routes: Iterable[EffectiveRoute], more_hosts: Iterable[str] = ()) -> Pipelock:
    """Return the configuration that mirrors these routes; `more_hosts`: sidecars that it also lets through."""
    routes = tuple(routes)
    networks = dict.fromkeys(network for route in routes for network in route.private)
    return Pipelock(
        api_allowlist=tuple(dict.fromkeys((*(route.host for route in routes), *more_hosts))),
        tls_interception=TlsInterception(
            passthrough_domains=tuple(each.host for each in routes if each.tls_passthrough)
        ),
        ssrf=Ssrf(ip_allowlist=tuple(networks)),
    )


def rendered(config: Pipelock) -> dict[str, Any]:
    """Return it as pipelock reads it. JSON is YAML, so that no text of a manifest is ever spliced into a format."""
    return config.model_dump(mode="json", exclude_none=True)
