"""Bottles on Docker whose agent runs on gVisor's kernel: the same promises, kept behind the real runsc.

The tests that are imported are the ones of the engine's usual runtime; `bottle_engine` is another engine here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.test_bottle_attacks import (  # noqa: F401  # tests are found by name
    Attacked,
    attacking,
    test_a_value_of_the_bottle_doesn_t_leave,
    test_cr1_no_credential_is_in_any_process_file_or_word,
    test_cr10_the_ca_s_key_is_in_no_file,
    test_dn8_a_name_that_leads_inside_is_refused,
    test_each_refusal_at_the_gate_is_a_line_of_the_audit,
    test_es1_cr11_nothing_outside_its_home_is_written,
    test_es10_it_has_no_terminal_to_type_into,
    test_nb8_nb9_no_socket_of_the_host_is_in_sight,
    test_refused_at_the_gate,
    test_refused_in_http2_too,
    test_there_is_no_way_around_the_gate,
    test_what_is_no_single_http_request_goes_nowhere,
)
from tests.adversarial.test_bottle_docker import (  # noqa: F401  # tests and fixtures are found by name
    test_no_raw_socket,
    test_no_socket_and_no_process_of_another_is_in_sight,
    test_not_one_packet_of_the_agent_s_goes_anywhere_but_to_its_bundle,
    test_nothing_that_listens_on_all_of_the_host_s_addresses_is_reached,
    test_the_authority_is_read_only_and_each_bottle_s_own,
    test_the_bundle_listens_on_the_inner_network_alone,
    test_the_engine_tells_no_credential,
    test_there_is_no_ipv6,
)
from tests.adversarial.test_bottle_docker_ends import (  # noqa: F401  # tests are found by name
    test_px30_without_its_bundle_the_agent_ends,
)
from tests.integration.test_bottle_docker import (  # noqa: F401  # tests and fixtures are found by name
    behind,
    test_an_agent_in_a_container_clones_and_pushes_through_the_gate,
)
from tests.integration.test_bottle_docker_bodies import (  # noqa: F401  # tests are found by name
    test_a_hundred_megabytes_go_both_ways_in_bounded_memory,
)
from tests.integration.test_bottle_supervise_docker import (  # noqa: F401  # tests and fixtures are found by name
    test_a_route_is_approved_for_an_agent_in_a_container,
    test_an_approved_capability_rebuilds_the_container_and_resumes_it_in_its_home,
    tree,
)
from tests.parts.bottle_backends import Scene
from tests.parts.bottle_engine import BottleEngine
from tests.parts.bottle_engine import bottle_engine as started
from tests.parts.bottle_running import processes_with
from tests.parts.docker_outcome import Outcome
from tests.parts.docker_outcome import outcome as outcome  # a fixture, found by name
from tests.parts.docker_stage import bottles_on, engine_of
from tests.parts.docker_stage import stage as stage  # a fixture, found by name
from tests.parts.gvisor import gvisor_options

pytestmark = pytest.mark.timeout(300)  # a first test starts an engine and a bottle too


@pytest.fixture(scope="module")
def bottle_engine() -> Iterator[BottleEngine]:
    with started(*gvisor_options()) as engine:
        yield engine


@pytest.fixture(scope="module", params=["docker"])
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacking(request, request.param, tmp_path_factory) as found:
        yield found
        assert found.upstream.requests == []


@pytest.mark.attack("ES2", "ES3", "ES4", "IP2", "IP13", "IP14", "CR10", "CR11", backend="docker")
def test_a_bottle_behind_gvisor_starts_works_is_verified_and_stopped(stage: Scene, tmp_path: Path) -> None:
    engine, bottles = engine_of(stage), bottles_on(stage, tmp_path / "home")
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    try:
        identity = json.loads(bottles.command("list", "--json").stdout)["bottles"][0]["identity"]
        agent, bundle = engine.inspect(f"bottle-{identity}-agent", f"bottle-{identity}-bundle")
        assert (agent["HostConfig"]["Runtime"], bundle["HostConfig"]["Runtime"]) == ("runsc", "runc")
        beside = bottles.command("exec", identity, "--", "/bin/sh", "-c", "uname -r; id -u; exit 5")
        assert beside.returncode == 5, beside.stderr
        kernel, uid = beside.stdout.split()
        assert (kernel.endswith("-gvisor"), uid) == (True, "1000")
        asks = ("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "https://api.test/v1/x")
        asked = bottles.command("exec", identity, "--", *asks)
        assert asked.stdout == "200", asked.stderr
        (arrived,) = bottles.upstream.requests
        assert arrived.header("authorization") == [f"Bearer {bottles.env['API_TOKEN']}"]
        verified = bottles.command("verify", identity, "--json")
        tried = json.loads(verified.stdout)
        assert [each for each in tried["attempts"] if each["held"] is not True] == []
        assert (verified.returncode, tried["held"]) == (0, True)
        (namespace,) = [each for each in tried["attempts"] if each["id"] == "ES2"]
        assert "gVisor's own kernel" in namespace["came"]
        stopped = bottles.command("stop", identity)
        assert stopped.returncode == 0, stopped.stderr
    finally:
        launcher.terminate()
        launcher.communicate(timeout=40)
    label = f"bottle.identity={identity}"
    assert engine.labelled("ps", label) == engine.labelled("network", label) == []
    assert processes_with(str(agent["Id"]).encode()) == []


@pytest.mark.attack("DN1", "DN4", backend="docker")
def test_names_are_asked_of_the_bundle_alone(outcome: Outcome) -> None:  # it is the fixture
    """The engine's own resolver isn't there: behind 127.0.0.11 is a loopback of gVisor's own."""
    assert set(outcome.answers["names"]) == {"gaierror"}
    assert outcome.answers["resolver"] == ["TimeoutError", "no such name"]
    assert "evil.test" in (outcome.bottles.state(outcome.identity) / "audit.jsonl").read_text()


FORKS = """
import os, sys, time
for _ in range(500):
    try:
        if os.fork() == 0: time.sleep(5); os._exit(0)
    except OSError: os._exit(7)
"""


@pytest.mark.attack("ES5", "ES6", backend="docker")
@pytest.mark.parametrize(
    ("limit", "using", "own"),
    [("processes=64", FORKS, 7), ("memory=512m", "x = bytearray(700 << 20)", None)],
    ids=("processes", "memory"),
)
def test_es5_es6_what_uses_up_its_bounds_ends_its_own_bottle(
    stage: Scene, tmp_path: Path, limit: str, using: str, own: int | None
) -> None:
    """gVisor's kernel is one program of the host's and lives within the same bounds: all of the bottle ends by them.

    `own`: the status of an agent that is refused instead, as it may be while the kernel has what itself needs.
    """
    engine, bottles = engine_of(stage), bottles_on(stage, tmp_path / "home")
    ended = bottles.run("worker", ["/usr/bin/python3", "-c", using], "--limit", limit)
    assert ended.code in (1, own), ended.stderr[-2000:]
    assert ended.code == own or "the agent's container ended" in ended.stderr
    label = f"bottle.identity={ended.identity}"
    assert engine.labelled("ps", label) == engine.labelled("network", label) == []


@pytest.mark.parametrize("status", [128, 137])
def test_a_status_that_an_engine_may_give_is_the_agent_s_own_while_its_container_lives(
    stage: Scene, tmp_path: Path, status: int
) -> None:
    bottles = bottles_on(stage, tmp_path / "home")
    ended = bottles.run("worker", ["/bin/sh", "-c", f"exit {status}"])
    assert ended.code == status, ended.stderr[-2000:]
