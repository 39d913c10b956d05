"""MF11: an image's name that leads elsewhere by now runs nothing else than what the operator's Dockerfile said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.parts.bottle_backends import Scene, scene
from tests.parts.bottle_engine import DOCKERFILE, IMAGE
from tests.parts.bottle_running import Bottles, Ended

pytestmark = [pytest.mark.attack(backend="docker"), pytest.mark.timeout(150)]
BOTTLE = "egress: {routes: [{host: api.test}]}\n"
LABEL = "opsexec-test.moved"


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(request, "docker", tmp_path_factory.mktemp("upstream"), ("api.test",)) as made:
        yield made


def started(bottles: Bottles) -> Ended:
    return bottles.run("worker", ["/bin/sh", "-c", "test -e /moved && echo moved || echo as built"])


def test_mf11_a_name_that_was_moved_runs_no_other_image(stage: Scene, tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = stage.engine
    assert engine is not None
    bottles = stage.bottles(tmp_path_factory.mktemp("home") / "root", dev=BOTTLE)
    bottles.root.agent("worker", "bottle: dev\n")
    assert started(bottles).stdout == "as built\n"

    name = f"bottle-agent:{hashlib.sha256(DOCKERFILE.encode()).hexdigest()[:16]}"
    built = engine.docker("image", "inspect", "--format", "{{.Id}}", name).strip()
    other = engine.docker("run", "-d", "--label", LABEL, IMAGE, "touch", "/moved").strip()
    engine.docker("wait", other)
    moved = engine.docker("commit", other, "opsexec-test/moved:1").strip()
    engine.docker("rm", other)
    base = engine.docker("image", "inspect", "--format", "{{.Id}}", IMAGE).strip()
    try:
        # The base moves: who named it without a digest was told so; who names it with one runs what it was.
        engine.docker("tag", moved, IMAGE)
        assert f"built on {IMAGE}, whatever the engine holds" in started(bottles).stderr
        (bottles.root.path / "agent.Dockerfile").write_text(f"FROM {base}\n")
        pinned = started(bottles)
        assert (pinned.stdout, "whatever the engine holds" in pinned.stderr) == ("as built\n", False), pinned
        (bottles.root.path / "agent.Dockerfile").write_text(DOCKERFILE)
        engine.docker("tag", base, IMAGE)
        assert started(bottles).stdout == "as built\n"
        # The name itself moves: refused, or built again of the Dockerfile, and never run as it is.
        engine.docker("tag", moved, name)
        ended = started(bottles)
        assert "moved" not in ended.stdout
        assert ended.stdout == "as built\n" or (ended.code in (1, 3) and name in ended.stderr), ended
    finally:
        engine.docker("tag", base, IMAGE)
        engine.docker("tag", built, name)
        engine.docker("rmi", "-f", "opsexec-test/moved:1")
