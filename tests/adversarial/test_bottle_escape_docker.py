"""Out of a container, and all over its engine's host: what is tried in a sandbox, tried in a bottle on docker.

The tests that are imported are those of bubblewrap's bottles; `bottles` are others here. What isn't imported differs:
PID 1 is a container's own and no gate's, and a call that is refused has another errno in an engine's words.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsexec.far import syscall_filter
from tests.adversarial.test_bottle_escape import (  # noqa: F401  # tests and fixtures are found by name
    BOTTLE,
    OPERATORS,
    Tried,
    test_es2_no_namespace_no_mount_no_other_root,
    test_es4_setuid_programs_gain_nothing,
    test_es10_there_is_no_terminal_and_none_is_typed_into,
    test_es12_no_descriptor_and_no_program_of_the_runtime_is_in_sight,
    test_es13_its_first_process_isn_t_ended_and_its_supervisor_isn_t_there,
    test_es15_the_clock_is_the_host_s,
    test_nb8_nb9_no_socket_of_the_host_is_reached_or_named,
    test_no_core_of_anything_in_a_bottle_is_written,
)
from tests.adversarial.test_bottle_escape import (
    tried as tried,
)
from tests.parts import bottle_escaping
from tests.parts.bottle_backends import LOOPBACK, scene
from tests.parts.bottle_engine import IMAGE, BottleEngine
from tests.parts.bottle_running import Bottles
from tests.parts.seccomp_rules import ALLOW, compiled, numbers, verdict

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

ATTEMPTS = Path(bottle_escaping.__file__).read_text() + "\nimport json"
FIRST = (
    0, 1, 2, 8, 10, 16, 17, 38, 40, 0x400, 0x410, 0x5401, 0x5412, 0x541C, 0x5423, 0x20000, 0x40000, 0x1200011,
    0x10000011, 0xFFFFFFFF,
)  # fmt: skip
"""What stands in an argument that a filter looks into."""


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


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls are tried by their numbers on x86_64")
@pytest.mark.attack("ES2", backend="docker")
def test_the_kernel_s_own_doors_are_closed_to_an_agent_in_a_container(tried: Tried) -> None:
    assert tried.answers["out"]["setuid"]["filtered"]
    refused = ("bpf", "perf", "userfaultfd", "keys", "vsock", "packet", "crypto", "bluetooth")
    assert tried.answers["out"]["kernel"] == {
        **dict.fromkeys((*refused, "lease", "line discipline"), "Operation not permitted"),
        **dict.fromkeys(("aio", "io_uring", "clone3", "newer than known"), "Function not implemented"),
    }


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls are tried by their numbers on x86_64")
def test_an_old_engine_s_own_filter_leaves_two_of_them_open(bottle_engine: BottleEngine) -> None:
    """What the profile is for: with 20.10's default, rings and AF_VSOCK end as on the host, whatever that has."""
    version = bottle_engine.docker("version", "--format", "{{.Server.Version}}")
    script = f"{ATTEMPTS}\nprint(json.dumps([call(*KERNEL[each]) for each in ('io_uring', 'vsock')]))"
    words = ["run", "--rm", "--user=1000", "--cap-drop=ALL", "--security-opt=no-new-privileges", IMAGE]
    there = json.loads(bottle_engine.docker(*words, "python3", "-c", script))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    here = json.loads(done.stdout)
    assert (there == here) == version.startswith("20.10."), (version, there, here)


def test_nothing_is_allowed_to_an_agent_that_its_engine_would_refuse_to_anybody(
    bottle_engine: BottleEngine, bottles: Bottles
) -> None:
    """Told by the rules that the engine gave its runtime for each: every call, and its arguments where they count."""
    launcher = bottles.begin("worker", ["/bin/sleep", "300"])
    usual = bottle_engine.docker("run", "-d", "--cap-drop=ALL", IMAGE, "sleep", "300").strip()
    try:
        own = bottle_engine.labelled("ps", "bottle.identity")
        (agent,) = [each["Id"] for each in bottle_engine.inspect(*own) if each["Name"].endswith("-agent")]
        architecture = syscall_filter.ARCHITECTURES[platform.machine()]
        mine, theirs = (compiled(_rules(bottle_engine, each), architecture) for each in (agent, usual))
    finally:
        bottle_engine.docker("rm", "-f", usual)
        launcher.terminate()
        launcher.communicate(timeout=40)
    allowed = 0
    for at, call in numbers(architecture).items():
        for first in FIRST if call in syscall_filter.LOOKED_INTO else (0,):
            for words in ((first,), (0, first), (first, 1, 6), (first, 1, 17)):
                if verdict(mine, architecture, at, *words) == ALLOW:
                    assert verdict(theirs, architecture, at, *words) == ALLOW, (call, words)
                    allowed += 1
    assert allowed > 1000


def _rules(engine: BottleEngine, container: str) -> list[dict[str, Any]]:
    """What a container's runtime was told about system calls (config.json of the OCI's runtime specification)."""
    (told,) = (engine.home / "exec").glob(f"**/{container}/config.json")
    filtered: dict[str, Any] = json.loads(told.read_text())["linux"]["seccomp"]
    assert filtered["defaultAction"] == "SCMP_ACT_ERRNO"
    assert filtered.get("defaultErrnoRet", 1) == 1
    rules: list[dict[str, Any]] = filtered["syscalls"]
    return rules
