"""What an agent in a container tries against its engine's network and host; each outcome is told from outside of it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SYSTEM_DIRS
from tests.parts.bottle_backends import Scene, scene
from tests.parts.bottle_engine import IMAGE, OUTSIDE, BottleEngine
from tests.parts.bottle_running import HELD, SCRIPT_HEAD, Bottles, processes_with, written_with
from tests.parts.network_watch import IPV6, Listeners, Sent, Watch
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

BOTTLE = """env:
  HELD: ${MY_HELD}
egress:
  routes:
    - host: api.test
      path_allowlist: [/v1]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
"""
METADATA = "169.254.169.254"
MDNS = "224.0.0.251"
ELSEWHERE = (METADATA, "100.100.100.200", "168.63.129.16", "192.0.2.1", OUTSIDE)
TCP, UDP = (80, 9999), (443, 5353, 9999)
PUBLISHED = 7070

WAITS = """
import time
open('waiting', 'w').close()
while not os.path.exists('go.json'): time.sleep(0.05)
aims = json.load(open('go.json'))
def aim(address, port, kind=STREAM): return partial(connects, socket.AF_INET, (address, port), kind)
def six(address, port): return partial(connects, socket.AF_INET6, (address, port))
found['tcp'] = at_once([aim(address, port) for address, port in aims['tcp']])
found['udp'] = at_once([aim(address, port, DATAGRAM) for address, port in aims['udp']])
found['six'] = at_once([six(address, 9999) for address in aims['six']])
found['sctp'] = attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).connect((aims['host'], 9999)))
found['ping'] = at_once([partial(attempt, partial(pinged, address)) for address in aims['ping']])
found['raw'] = [attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)),
                attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))]
found['names'] = [attempt(lambda name=name: socket.gethostbyname(name)) for name in aims['names']]
found['resolver'] = [answered((each, 53)) for each in ('127.0.0.11', aims['bundle'])]
found['abstract'] = [line.split()[-1] for line in open('/proc/net/unix') if '@' in line]
found['sockets'] = [each for each in aims['sockets'] if os.path.exists(each)]
found['environ'] = readable('environ') + readable('cmdline')
found['bundle in sight'] = [each for each in readable('cmdline') if '-m' in each.split(chr(0))]
found['ok'] = get('https://api.test/v1/x')[0]
"""


@dataclass
class Outcome:
    """What the agent says, and what stands outside: frames, listeners, the engine."""

    answers: dict[str, Any]
    agent: dict[str, Any]
    bundle: dict[str, Any]
    sent: set[Sent]
    reached: list[str]
    engine: BottleEngine
    bottles: Bottles
    identity: str
    held_by: list[int]
    exposed: list[str]


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(request, "docker", tmp_path_factory.mktemp("upstream"), ("api.test",)) as made:
        yield made


def _bottles(stage: Scene, home: Path) -> Bottles:
    found = stage.bottles(home, dev=BOTTLE)
    found.env["API_TOKEN"] = f"tok-{secrets.token_hex(16)}"  # so that what holds it is this test's
    for name in ("worker", "other"):
        found.root.agent(name, "bottle: dev\n")
    return found


def _engine(stage: Scene) -> BottleEngine:
    assert stage.engine is not None
    return stage.engine


def _home(bottles: Bottles, identity: str) -> Path:
    return bottles.state(identity) / "home"


def _running(bottles: Bottles) -> list[str]:
    rows = json.loads(bottles.command("list", "--json").stdout)["bottles"]
    return [row["identity"] for row in rows]


def _addresses(container: dict[str, Any]) -> list[str]:
    return [each["IPAddress"] for each in container["NetworkSettings"]["Networks"].values()]


@pytest.fixture(scope="module")
def outcome(stage: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    engine = _engine(stage)
    bottles = _bottles(stage, tmp_path_factory.mktemp("home") / "root")
    engine.ip("addr", "add", f"{METADATA}/32", "dev", "lo")
    neighbour = engine.docker(
        "run", "-d", "-p", f"{PUBLISHED}:{PUBLISHED}", IMAGE, "python3", "-m", "http.server", str(PUBLISHED)
    ).strip()
    with Listeners(engine.within, TCP, UDP) as listeners, Watch(engine.within) as watch:
        other = bottles.begin("other", ["/bin/sleep", "600"])
        script = SCRIPT_HEAD + WAITS + "\nopen('answers.json', 'w').write(json.dumps(found))\ntime.sleep(600)"
        launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", script])
        try:
            identity = next(each for each in _running(bottles) if each.startswith("worker-"))
            home = _home(bottles, identity)
            eventually_now((home / "waiting").exists, within_s=30, what="the agent waits")
            mine = engine.inspect(f"bottle-{identity}-agent", f"bottle-{identity}-bundle")
            theirs = [name for name in engine.labelled("ps", "bottle.identity") if "bottle-other-" in name]
            others = engine.inspect(*theirs)
            host = [
                each["local"]
                for link in json.loads(engine.ip("-j", "addr"))
                for each in link["addr_info"]
                if each["family"] == "inet"
            ]
            gateways = [each.rpartition(".")[0] + ".1" for each in _addresses(mine[1])]
            foreign = [address for each in others for address in _addresses(each)]
            outer = [each for each in _addresses(mine[1]) if not each.startswith("198.")]
            sixes = [
                each["local"]
                for link in json.loads(engine.ip("-j", "addr"))
                for each in link["addr_info"]
                if each["family"] == "inet6"
            ]
            aims = {
                "tcp": [[each, port] for each in {*host, *gateways, *ELSEWHERE} for port in (9999, 80)]
                + [[each, port] for each in {*foreign, *outer} for port in (8877, 8878, 8879, 9418, 53, 9999)]
                + [[each, PUBLISHED] for each in {*host, *gateways}]
                + [[engine.inspect(neighbour)[0]["NetworkSettings"]["IPAddress"], PUBLISHED]],
                "udp": [[each, port] for each in {*host, *ELSEWHERE, "8.8.8.8", MDNS} for port in UDP]
                + [[each, 53] for each in ("8.8.8.8", *foreign)],
                "six": [*sixes, "fd00:ec2::254", "2001:db8::1", *(f"::ffff:{each}" for each in host)],
                "ping": [*host, *foreign, "192.0.2.1"],
                "host": host[0],
                "bundle": next(each for each in _addresses(mine[1]) if each.startswith("198.")),
                "names": ["evil.test", "host.docker.internal", "host.containers.internal", "metadata.google.internal"],
                "sockets": ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock",
                            "/run/podman/podman.sock", "/tmp/.X11-unix", "/run/dbus/system_bus_socket",
                            "/run/tailscale/tailscaled.sock", str(engine.socket)],
            }  # fmt: skip
            (home / "go.new").write_text(json.dumps(aims))
            (home / "go.new").rename(home / "go.json")
            eventually_now((home / "answers.json").exists, within_s=60, what="the agent has tried")
            answers = eventually_now(lambda: _read(home / "answers.json"), within_s=10, what="its answers")
            held = processes_with(bottles.env["API_TOKEN"].encode())
            end = mine[0]["NetworkSettings"]["Networks"][f"bottle-{identity}-inner"]
            sent = watch.by(end["MacAddress"], end["IPAddress"])
            exposed = _exposed(engine, identity)
            yield Outcome(answers, mine[0], mine[1], sent, listeners.reached, engine, bottles, identity, held, exposed)
        finally:
            for each in (launcher, other):
                each.terminate()
                each.communicate(timeout=30)
            bottles.command("cleanup")  # the engine restarts in a test of this file: they could take nothing away then
            engine.docker("rm", "-f", neighbour)
            engine.ip("addr", "del", f"{METADATA}/32", "dev", "lo")


def _bridge(outcome: Outcome) -> str:
    network = outcome.engine.inspect(f"bottle-{outcome.identity}-inner")[0]
    return f"br-{network['Id'][:12]}"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def _exposed(engine: BottleEngine, identity: str) -> list[str]:
    """Everything the engine itself would tell of a bottle: its containers, networks and images, with their history."""
    names = engine.labelled("ps", f"bottle.identity={identity}")
    images = engine.docker("images", "-q").split()
    told = [engine.docker("inspect", *names, *engine.labelled("network", f"bottle.identity={identity}"), *images)]
    told += [engine.docker("history", "--no-trunc", image) for image in images]
    told += [engine.docker("logs", name, check=False) for name in names]
    told += [engine.docker("top", name) for name in names]
    return told


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
    inner = next(each for each in _addresses(outcome.bundle) if each.startswith("198."))
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
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
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
    inner = next(each for each in _addresses(outcome.bundle) if each.startswith("198."))
    words = ["nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-Hltun"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    local = {line.split()[4].rpartition(":")[0] for line in lines}
    assert {each for each in local if not each.startswith("127.")} == {inner}


RESOURCES = """
import time
def child(text):
    return subprocess.run(['/usr/bin/python3', '-c', text], capture_output=True, timeout=60).returncode
found['forks'] = child('''
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0: time.sleep(5); os._exit(0)
        made += 1
except OSError: os._exit(7)
os._exit(0)''')
time.sleep(6)
found['memory'] = child("x = bytearray(1500 << 20)")
found['tmp'] = child("f = open('/tmp/x', 'wb'); [f.write(bytes(1 << 20)) for _ in range(600)]")
try: os.unlink('/tmp/x')
except OSError: pass
found['root'] = attempt(lambda: open('/var/x', 'w'))
found['file'] = attempt(lambda: os.truncate('/tmp/y', 1 << 40) if open('/tmp/y', 'w') else None)
found['ok'] = get('https://api.test/v1/after')[0]
"""


@pytest.mark.attack("ES5", "ES6", "ES7", "ES8", backend="docker")
def test_what_an_agent_uses_up_is_its_own(stage: Scene, tmp_path: Path) -> None:
    """ES5, ES6, ES7: processes, memory and memory disks are bounded, and the bundle goes on."""
    bottles = _bottles(stage, tmp_path / "home")
    ended = bottles.script("worker", RESOURCES, "--limit", "processes=64", "--limit", "memory=1g")
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    assert answers["forks"] == 7
    assert answers["memory"] != 0
    assert answers["tmp"] != 0
    assert answers["root"] == "OSError"
    assert answers["ok"] == 200
    assert bottles.upstream.requests[-1].path == "/v1/after"


@pytest.mark.attack("ES7", "ES8", backend="docker")
@pytest.mark.parametrize(
    ("bound", "filling"),
    [
        ("home=64m", "dd if=/dev/zero of=big bs=1M count=4096"),
        ("files=500", "i=0; while :; do i=$((i+1)); : > f$i; done"),
    ],
)
def test_es7_es8_a_home_over_its_bound_ends_the_agent(stage: Scene, tmp_path: Path, bound: str, filling: str) -> None:
    """ES7, ES8: the home is on the host's disk, and somebody looks."""
    bottles = _bottles(stage, tmp_path / "home")
    ended = bottles.run("worker", ["/bin/sh", "-c", f"{filling}; sleep 600"], "--limit", bound)
    assert ended.code == 1
    assert "home" in ended.stderr.splitlines()[-2] + ended.stderr.splitlines()[-1]
    assert _engine(stage).labelled("ps", f"bottle.identity={ended.identity}") == []


MOMENTS = ("networks", "bundle", "agent")


@pytest.mark.attack("LC1", backend="docker")
@pytest.mark.parametrize("moment", MOMENTS)
def test_lc1_a_launcher_killed_on_its_way_leaves_nothing_that_runs(stage: Scene, tmp_path: Path, moment: str) -> None:
    """LC1: whatever stood by then ends by itself, and cleanup finds the rest by its labels."""
    engine = _engine(stage)
    bottles = _bottles(stage, tmp_path / "home")
    argv = bottles.start_argv("worker", ["/bin/sleep", "600"])
    launcher = subprocess.Popen(argv, env=bottles.environ(), stdout=-1, stderr=-1, text=True)
    state = bottles.root.path / "state"
    identity = eventually_now(lambda: [each.name for each in state.glob("worker-*")], within_s=30, what="a state")[0]
    label = f"bottle.identity={identity}"
    kind = "network" if moment == "networks" else "ps"
    wanted = {"networks": "outer", "bundle": "bundle", "agent": "agent"}[moment]
    eventually_now(
        lambda: f"bottle-{identity}-{wanted}" in engine.labelled(kind, label), within_s=30, what=f"the {moment}"
    )
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.communicate(timeout=30)
    eventually_now(lambda: engine.running(label) == [], within_s=30, what="its containers have ended")
    assert processes_with(bottles.env["API_TOKEN"].encode()) == []
    assert "removed" in bottles.command("cleanup").stdout
    assert engine.labelled("network", label) == engine.labelled("ps", label) == []


@pytest.mark.attack("LC1", backend="docker")
def test_lc1_cleanup_leaves_what_is_not_its_root_s(stage: Scene, tmp_path: Path) -> None:
    """LC1: by label, never by name alone."""
    engine = _engine(stage)
    bottles = _bottles(stage, tmp_path / "home")
    engine.docker("network", "create", "--label", "bottle.identity=worker-00000000", "bottle-worker-00000000-inner")
    engine.docker("run", "-d", "--name", "bottle-worker-00000000-agent", IMAGE, "sleep", "60")
    try:
        assert bottles.command("cleanup", "--all").stdout == ""
        assert engine.inspect("bottle-worker-00000000-agent")[0]["State"]["Running"]
        assert engine.labelled("network", "bottle.identity=worker-00000000") == ["bottle-worker-00000000-inner"]
    finally:
        engine.docker("rm", "-f", "bottle-worker-00000000-agent")
        engine.docker("network", "rm", "bottle-worker-00000000-inner")


@pytest.mark.attack("PX30", backend="docker")
def test_px30_without_its_bundle_the_agent_ends(stage: Scene, tmp_path: Path) -> None:
    """PX30: nothing goes on without a gate."""
    engine = _engine(stage)
    bottles = _bottles(stage, tmp_path / "home")
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    (identity,) = _running(bottles)
    engine.docker("kill", f"bottle-{identity}-bundle")
    _, stderr = launcher.communicate(timeout=40)
    assert launcher.returncode == 1
    assert "the bundle ended" in stderr
    assert engine.labelled("ps", f"bottle.identity={identity}") == []
    assert engine.labelled("network", f"bottle.identity={identity}") == []


@pytest.mark.attack("LC7", backend="docker")
def test_lc7_an_engine_that_restarts_ends_its_bottles_and_they_can_be_resumed(stage: Scene, tmp_path: Path) -> None:
    """LC7; and the agent is run by runsc where the engine has it."""
    engine = _engine(stage)
    bottles = _bottles(stage, tmp_path / "home")
    script = "[ -e note ] && cat note && exit 0; echo x > note; sleep 600"
    launcher = bottles.begin("worker", ["/bin/sh", "-c", script])
    (identity,) = _running(bottles)
    eventually_now((_home(bottles, identity) / "note").exists, within_s=20, what="the note")
    assert _runtime(engine, identity) == "runc"
    engine.stop()
    try:
        _, stderr = launcher.communicate(timeout=40)
    finally:
        # By that name it is registered; what it leads to is the engine's usual one.
        engine.options = ["--add-runtime", f"runsc={shutil.which('runc', path=SYSTEM_DIRS)}"]
        engine.start()
    assert launcher.returncode not in (0, None)
    assert "Traceback" not in stderr
    assert processes_with(f"BOTTLE_IDENTITY={identity}".encode()) == []
    resumed = bottles.command("resume", identity, "-y", *bottles.reaching())
    assert (resumed.returncode, resumed.stdout) == (0, "x\n"), resumed.stderr
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    try:
        (identity,) = _running(bottles)
        assert _runtime(engine, identity) == "runsc"
    finally:
        launcher.terminate()
        launcher.communicate(timeout=40)


def _runtime(engine: BottleEngine, identity: str) -> str:
    return str(engine.inspect(f"bottle-{identity}-agent")[0]["HostConfig"]["Runtime"])
