"""Bottles with supervise for a whole file of tests: their manifests, and the one that runs while the file does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.parts.bottle_backends import LOOPBACK, Name, scene
from tests.parts.bottle_running import Bottles
from tests.parts.supervised import Supervised

OPEN = """supervise: true
egress:
  routes:
    - host: open.test
      path_allowlist: [/a]
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
"""
"""A bottle with one route."""

HELD_AND_OPEN = """supervise: true
env:
  HELD: ${MY_HELD}
egress:
  routes:
    - host: api.test
      path_allowlist: [/v1]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
    - host: open.test
      path_allowlist: [/a]
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
"""
"""A bottle with a value of its own, a route with a credential and one without."""

PROPOSE = (
    "threading.Thread(target=tool, args=('propose_route',), "
    "kwargs={'host': 'open.test', 'path_allowlist': ['/board'], 'why': 'w'}).start()"
)
"""Asks for a route, and doesn't wait for the answer."""


@contextmanager
def supervised_bottles(
    request: pytest.FixtureRequest,
    made: pytest.TempPathFactory,
    hosts: tuple[str, ...],
    manifests: Mapping[str, str],
    *,
    answer_s: float,
    backend: Name = "bwrap",
    agents: Mapping[str, str] | None = None,
) -> Iterator[Bottles]:
    """A home root with these bottles, an agent called `worker` of `dev` and these others of theirs, over an upstream.

    `answer_s`: how long an agent's question waits for the answer, in seconds.
    """
    with scene(request, backend, made.mktemp("upstream"), hosts) as stage:
        fronts = {name: front.replace(LOOPBACK, stage.address) for name, front in manifests.items()}
        bottles = stage.bottles(made.mktemp("root") / "home", **fronts)
        for name, bottle in {"worker": "dev", **(agents or {})}.items():
            bottles.root.agent(name, f"bottle: {bottle}\n", "Work.\n")
        bottles.env["SUPERVISE_RESPONSE_TIMEOUT_SECONDS"] = f"{answer_s:g}"
        yield bottles


@pytest.fixture(scope="module")
def supervised(bottles: Bottles) -> Iterator[Supervised]:
    """The worker of the file's own `bottles`, as long as the file's tests run."""
    started = Supervised.start(bottles)
    yield started
    started.stop()


@pytest.fixture
def bottle(supervised: Supervised) -> Iterator[Supervised]:
    """The running one, with nothing asked for and nothing seen upstream."""
    supervised.bottles.upstream.requests.clear()
    yield supervised
    supervised.clear()
