"""The same scene for bottles on every backend: a home root, an upstream where the bundle can reach it, the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.parts.bottle_engine import DOCKERFILE, OUTSIDE, BottleEngine
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, require_bottles
from tests.parts.upstream_tls import RequestHandler, Upstream

Name = Literal["bwrap", "docker"]
BACKENDS: tuple[Name, ...] = ("bwrap", "docker")
LOOPBACK = "127.0.0.7"


@dataclass
class Scene:
    """One backend with an upstream that its bundles reach; `engine` None: bubblewrap."""

    backend: Name
    upstream: Upstream
    engine: BottleEngine | None = None

    @property
    def address(self) -> str:
        """The upstream's address, which routes must grant: it is private."""
        return self.upstream.address

    def bottle(self, front: str) -> str:
        """A bottle's front matter, as this backend needs it; ADDRESS stands for the upstream's."""
        provider = "" if self.engine is None else "agent_provider: {template: command, dockerfile: agent.Dockerfile}\n"
        return provider + front.replace("ADDRESS", self.address)

    def bottles(self, home: Path, **bottles: str) -> Bottles:
        """A home root with these bottles, and the commands over it."""
        self.upstream.requests.clear()
        root = HomeRoot(home)
        (home / "agent.Dockerfile").write_text(DOCKERFILE)
        for name, front in bottles.items():
            root.bottle(name, self.bottle(front))
        return Bottles(root, self.upstream, engine=self.engine)


@contextmanager
def scene(
    request: pytest.FixtureRequest,
    backend: Name,
    directory: Path,
    names: tuple[str, ...],
    handler: Callable[[Upstream], type[RequestHandler]] | None = None,
) -> Iterator[Scene]:
    """Make the scene of a backend; skips, or fails under REQUIRE_ALL, where its parts are missing."""
    require_bottles()
    if backend == "bwrap":
        with Upstream(directory, names, LOOPBACK, handler=handler) as upstream:
            yield Scene(backend, upstream)
        return
    engine: BottleEngine = request.getfixturevalue("bottle_engine")
    upstream = Upstream(directory, names, OUTSIDE, handler=handler)
    engine.within(upstream.__enter__)
    try:
        yield Scene(backend, upstream, engine)
    finally:
        upstream.__exit__()
        assert engine.labelled("network", "bottle.identity") == [], "every bottle takes its networks away"
