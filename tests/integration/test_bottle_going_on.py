"""What becomes of a bottle that has ended: its home is kept, whatever goes wrong with the next launch of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, require_bottles
from tests.parts.upstream_tls import Upstream

WORK = "[ -e note ] && exec cat note; echo kept > note"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    require_bottles()
    with Upstream(tmp_path_factory.mktemp("upstream"), ("open.test",)) as running:
        yield running


@pytest.fixture
def bottles(tmp_path: Path, upstream: Upstream) -> Bottles:
    root = HomeRoot(tmp_path / "home")
    root.bottle("dev", "env: {MODE: fast}\n")
    root.agent("worker", "bottle: dev\n")
    return Bottles(root, upstream)


def test_a_resume_that_fails_leaves_a_bottle_that_cleanup_keeps(bottles: Bottles) -> None:
    identity = bottles.run("worker", ["/bin/sh", "-c", WORK]).identity
    failed = bottles.command("resume", identity, "-y", "--tty")
    assert (failed.returncode, "leave --tty out" in failed.stderr) == (2, True)
    assert bottles.command("cleanup").stdout == ""
    again = bottles.command("resume", identity, "-y")
    assert (again.returncode, again.stdout) == (0, "kept\n"), again.stderr
