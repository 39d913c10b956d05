"""Bottles of an agent without any way out, for tests of what goes on around one: `upstream` and `bottles` are fixtures,
and are imported by the modules that want them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, require_bottles
from tests.parts.upstream_tls import Upstream


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    require_bottles()
    with Upstream(tmp_path_factory.mktemp("upstream"), ("open.test",)) as running:
        yield running


@pytest.fixture
def bottles(upstream: Upstream, tmp_path: Path) -> Bottles:
    root = HomeRoot(tmp_path / "home")
    root.bottle("dev", "env: {MODE: fast}\n")
    root.agent("worker", "bottle: dev\n")
    return Bottles(root, upstream)
