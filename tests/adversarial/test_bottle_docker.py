"""What an agent in a container tries against its engine's network and host; each outcome is told from outside of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from opsexec.handlers.container_syscalls import profile
from tests.parts.bottle_running import HELD, written_with
from tests.parts.docker_outcome import MDNS, Outcome, addresses
from tests.parts.docker_outcome import outcome as outcome  # a fixture, found by name
from tests.parts.docker_stage import stage as stage  # a fixture, found by name
from tests.parts.network_watch import IPV6

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away


def _bridge(outcome: Outcome) -> str:
    network = outcome.engine.inspect(f"bottle-{outcome.identity}-inner")[0]
    return f"br-{network['Id'][:12]}"


def test_the_bottle_s_own_work_goes_on(outcome: Outcome) -> None:
    assert outcome.answers["ok"] == 200
    assert outcome.bottles.upstream.requests[-1].header("authorization") == [
        f"Bearer {outcome.bottles.env['API_TOKEN']}"
    ]


@pytest.mark.attack(
    "DN3", "DN5", "IP1", "IP2", "IP12", "IP13", "IP15", "NB1", "NB3", "NB4", "NB6", "NB7", backend="docker"
)
def test_not_one_packet_of_the_agent_s_goes_anywhere_but_to_its_bundle(outcome: Outcome) -> None:
    """DN3, DN5, IP1, IP2, IP12, IP13, IP15, NB1, NB3, NB4, NB6, NB7."""
    inner = next(each for each in addresses(outcome.bundle) if each.startswith("198."))
    # A question to everybody on the wire is heard by the one who is on it, and goes no further.
    assert {each for each in outcome.sent if each.to not in (inner, MDNS)} == set()
    asked = {(each.protocol, each.port) for each in outcome.sent if each.to == inner and each.protocol != 1}
    assert asked <= {(6, 8877), (17, 53), (6, 53)}
    bridge = _bridge(outcome)
    wire = {link["ifname"] for link in json.loads(outcome.engine.ip("-j", "link", "show", "master", bridge))}
    assert {each.on for each in outcome.sent} <= {bridge, *wire}


@pytest.mark.attack("NB1", "NB2", "NB7", "IP12", backend="docker")
def test_nothing_that_listens_on_all_of_the_host_s_addresses_is_reached(outcome: Outcome) -> None:
    """NB1, NB2, NB7, IP12: the bridge of an internal network has no address of the host's."""
    assert "inet " not in outcome.engine.ip("-4", "addr", "show", "dev", _bridge(outcome))
    assert outcome.reached == []
    assert "connected" not in outcome.answers["tcp"]
    assert "connected" not in outcome.answers["udp"]


@pytest.mark.attack("IP3", "IP4", "IP5", "IP12", backend="docker")
def test_there_is_no_ipv6(outcome: Outcome) -> None:
    """IP3, IP4, IP5."""
    assert "connected" not in outcome.answers["six"]
    assert not [each for each in outcome.sent if each.kind == IPV6]


@pytest.mark.attack("DN1", "DN4", "NB2", "IP12", backend="docker")
def test_names_are_asked_of_the_bundle_alone_and_it_knows_its_own(outcome: Outcome) -> None:
    """DN1, DN4: through the engine's own resolver too."""
    assert set(outcome.answers["names"]) == {"gaierror"}
    assert set(outcome.answers["resolver"]) == {"no such name"}
    denied = (outcome.bottles.state(outcome.identity) / "audit.jsonl").read_text()
    assert "evil.test" in denied


@pytest.mark.attack("IP14", backend="docker")
def test_no_raw_socket(outcome: Outcome) -> None:
    """IP14."""
    assert set(outcome.answers["raw"]) == {"PermissionError"}
    assert outcome.answers["sctp"] != "None"


@pytest.mark.attack("NB8", "NB9", "ES3", backend="docker")
def test_no_socket_and_no_process_of_another_is_in_sight(outcome: Outcome) -> None:
    """NB8, NB9, ES3."""
    assert outcome.answers["sockets"] == []
    assert outcome.answers["abstract"] == []
    assert outcome.answers["bundle in sight"] == []


@pytest.mark.attack("CR1", "CR10", backend="docker")
def test_the_engine_tells_no_credential(outcome: Outcome) -> None:
    """CR1, CR10: inspect, history, logs, argv, and the files the engine keeps."""
    told = "".join(outcome.exposed)
    token = outcome.bottles.env["API_TOKEN"]
    for value in (token, HELD, "PRIVATE KEY"):
        assert value not in told
        for kept in ("containers", "image", "network", "tmp"):
            assert written_with(outcome.engine.home / "data" / kept, value.encode()) == []
        found = written_with(outcome.bottles.root.path, value.encode())
        assert [path for path in found if path.name != "answers.json"] == []  # which the agent itself wrote
    assert token not in "".join(outcome.answers["environ"])
    contained = [pid for pid in outcome.held_by if "docker" in Path(f"/proc/{pid}/cgroup").read_text()]
    assert contained == []


@pytest.mark.attack("CR11", "CR12", backend="docker")
def test_the_authority_is_read_only_and_each_bottle_s_own(outcome: Outcome) -> None:
    """CR11, CR12."""
    mounts = {each["Destination"]: each["RW"] for each in outcome.agent["Mounts"]}
    assert {inside for inside, writable in mounts.items() if writable} == {"/home/agent"}
    found = [path.read_text() for path in (outcome.bottles.root.path / "state").glob("*/guest/ca.pem")]
    assert len(found) == len(set(found)) == 2


@pytest.mark.attack("ES1", "ES2", "ES4", backend="docker")
def test_both_containers_have_nothing_to_grow_by(outcome: Outcome) -> None:
    """ES1, ES2, ES4."""
    for container in (outcome.agent, outcome.bundle):
        host = container["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert not host["Privileged"]
        assert host["ReadonlyRootfs"]
        assert host["SecurityOpt"] == ["no-new-privileges:true", f"seccomp={profile()}"]
        assert (host["PidMode"], host["IpcMode"], host["UsernsMode"], host["Devices"]) == ("", "private", "", None)
        assert host["PortBindings"] in ({}, None)
        assert host["PidsLimit"] > 0
        assert host["Memory"] > 0
        assert not container["Config"]["User"].startswith("0")
        assert "/proc/kcore" in host["MaskedPaths"]
        assert "/proc/sys" in host["ReadonlyPaths"]
        status = Path(f"/proc/{container['State']['Pid']}/status").read_text()
        assert "Seccomp:\t2" in status
        assert {line.split()[1] for line in status.splitlines() if line.startswith("Cap")} == {"0" * 16}
    assert list(outcome.agent["NetworkSettings"]["Networks"]) == [f"bottle-{outcome.identity}-inner"]


@pytest.mark.attack("NB6", backend="docker")
def test_the_bundle_listens_on_the_inner_network_alone(outcome: Outcome) -> None:
    """NB6: from the host and from other containers there is no gate to be found."""
    pid = outcome.bundle["State"]["Pid"]
    inner = next(each for each in addresses(outcome.bundle) if each.startswith("198."))
    words = ["nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-Hltun"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    local = {line.split()[4].rpartition(":")[0] for line in lines}
    assert {each for each in local if not each.startswith("127.")} == {inner}
