"""Out of a container, and all over its engine's host: what is tried in a sandbox, tried in a bottle on docker.

The tests that are imported are those of bubblewrap's bottles; `bottles` are others here. What isn't imported differs:
PID 1 is a container's own and no gate's, and which calls the kernel takes is for the engine's own filter to say.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversarial.test_bottle_escape import (  # noqa: F401  # tests and fixtures are found by name
    BOTTLE,
    OPERATORS,
    test_es2_no_namespace_no_mount_no_other_root,
    test_es4_setuid_programs_gain_nothing,
    test_es10_there_is_no_terminal_and_none_is_typed_into,
    test_es12_no_descriptor_and_no_program_of_the_runtime_is_in_sight,
    test_es13_its_first_process_isn_t_ended_and_its_supervisor_isn_t_there,
    test_es15_the_clock_is_the_host_s,
    test_nb8_nb9_no_socket_of_the_host_is_reached_or_named,
    test_no_core_of_anything_in_a_bottle_is_written,
    tried,
)
from tests.parts.bottle_backends import LOOPBACK, scene
from tests.parts.bottle_running import Bottles

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away


@pytest.fixture(scope="module")
def bottles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    with scene(request, "docker", tmp_path_factory.mktemp("upstream"), ("api.test",)) as stage:
        front = BOTTLE.replace(LOOPBACK, stage.address)
        made = stage.bottles(tmp_path_factory.mktemp("home") / "root", dev=front)
        made.root.agent("worker", "bottle: dev\n")
        made.env = dict(OPERATORS)
        yield made


@pytest.fixture(scope="module")
def using_up() -> str:
    """Nothing: what an engine's bounds are, and what comes of them, has tests of its own."""
    return ""
