"""What tests of bottles on Docker begin with: the scene, its bottle of one route, and where things are in it.

`stage` is a fixture, and is imported by the modules that want it: each has the engine of its own `bottle_engine`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parts.bottle_backends import Scene, scene
from tests.parts.bottle_engine import OUTSIDE, BottleEngine
from tests.parts.bottle_running import Bottles
from tests.parts.upstream_tls import RequestHandler, Upstream

BOTTLE = """env:
  HELD: ${MY_HELD}
egress:
  routes:
    - host: api.test
      path_allowlist: [/v1]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
"""


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(request, "docker", tmp_path_factory.mktemp("upstream"), ("api.test",)) as made:
        yield made


@contextmanager
def beside(stage: Scene, directory: Path, handler: Callable[[Upstream], type[RequestHandler]]) -> Iterator[Scene]:
    """The same stage with an upstream of the caller's own in the place of the usual one."""
    engine = engine_of(stage)
    upstream = Upstream(directory, stage.upstream.names, OUTSIDE, handler=handler)
    engine.within(upstream.__enter__)
    try:
        yield Scene("docker", upstream, engine)
    finally:
        upstream.__exit__()


def bottles_on(stage: Scene, home: Path) -> Bottles:
    """A home root with two agents of that bottle, whose token is nobody else's: what holds it is this test's."""
    found = stage.bottles(home, dev=BOTTLE)
    found.env["API_TOKEN"] = f"tok-{secrets.token_hex(16)}"
    for name in ("worker", "other"):
        found.root.agent(name, "bottle: dev\n")
    return found


def engine_of(stage: Scene) -> BottleEngine:
    """The engine."""
    assert stage.engine is not None
    return stage.engine


def home_of(bottles: Bottles, identity: str) -> Path:
    """An agent's home, as the host has it."""
    return bottles.state(identity) / "home"


def running_in(bottles: Bottles) -> list[str]:
    """The identities of the bottles that run."""
    rows = json.loads(bottles.command("list", "--json").stdout)["bottles"]
    return [row["identity"] for row in rows]
