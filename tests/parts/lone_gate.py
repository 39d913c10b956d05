"""One egress gate by itself for a whole file, with three granted hosts and an upstream behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.parts.egress_gate import EgressGate, route
from tests.parts.upstream_shop import Shop
from tests.parts.upstream_tls import Upstream

TOKEN = "tok-REAL-0123456789abcdef"
HELD = "held-secret-77665544"
NAMES = ("api.test", "open.test", "other.test")
ROUTES = [route("api.test", prefixes=["/v1"], slot="EGRESS_TOKEN_0"), route("open.test"), route("other.test")]
MIB = 1 << 20


def upstream_in(directory: Path, shop: Shop | None = None) -> Upstream:
    """The upstream; with a shop behind it, it speaks more."""
    return Upstream(directory, NAMES, handler=None if shop is None else shop.handler)


def gate_in(directory: Path, upstream: Upstream, within: Sequence[str] = ()) -> EgressGate:
    """The gate in front of it. `within`: a program that starts it."""
    return EgressGate(
        directory,
        ROUTES,
        dict.fromkeys(NAMES, (upstream.address, upstream.port)),
        upstream.ca,
        tokens={"EGRESS_TOKEN_0": TOKEN},
        known=[("HELD", HELD)],
        within=within,
    )


def nothing_is_broken(gate: EgressGate) -> None:
    """Whatever was tried: the gate is there, ordinary work goes on, and no error was left to mitmproxy."""
    assert not gate.gone()
    assert gate.ask("open.test", "/after")[0] == 200
    assert [line for line in gate.other if "Traceback" in line] == []


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """What the granted hosts of a file's gate are."""
    with upstream_in(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.fixture(scope="module")
def gate(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EgressGate]:
    """The gate that a file's tests share."""
    with gate_in(tmp_path_factory.mktemp("gate"), upstream) as running:
        yield running


@pytest.fixture
def whole_gate(upstream: Upstream, gate: EgressGate) -> Iterator[None]:
    """Nothing seen upstream before a test, and nothing broken after it."""
    upstream.requests.clear()
    upstream.messages.clear()
    yield
    nothing_is_broken(gate)
