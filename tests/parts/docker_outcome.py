"""An agent in a container that has tried its engine's network and host, and what was seen of it from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parts.bottle_backends import Scene
from tests.parts.bottle_engine import IMAGE, OUTSIDE, BottleEngine
from tests.parts.bottle_running import SCRIPT_HEAD, Bottles, processes_with
from tests.parts.docker_stage import bottles_on, engine_of, home_of, running_in
from tests.parts.network_watch import Listeners, Sent, Watch
from tests.parts.waiting import eventually_now

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
def outcome(stage: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    engine = engine_of(stage)
    bottles = bottles_on(stage, tmp_path_factory.mktemp("home") / "root")
    engine.ip("addr", "add", f"{METADATA}/32", "dev", "lo")
    neighbour = engine.docker(
        "run", "-d", "-p", f"{PUBLISHED}:{PUBLISHED}", IMAGE, "python3", "-m", "http.server", str(PUBLISHED)
    ).strip()
    with Listeners(engine.within, TCP, UDP) as listeners, Watch(engine.within) as watch:
        other = bottles.begin("other", ["/bin/sleep", "600"])
        script = SCRIPT_HEAD + WAITS + "\nopen('answers.json', 'w').write(json.dumps(found))\ntime.sleep(600)"
        launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", script])
        try:
            identity = next(each for each in running_in(bottles) if each.startswith("worker-"))
            home = home_of(bottles, identity)
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
            gateways = [each.rpartition(".")[0] + ".1" for each in addresses(mine[1])]
            foreign = [address for each in others for address in addresses(each)]
            outer = [each for each in addresses(mine[1]) if not each.startswith("198.")]
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
                "bundle": next(each for each in addresses(mine[1]) if each.startswith("198.")),
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
            engine.docker("rm", "-f", neighbour)
            engine.ip("addr", "del", f"{METADATA}/32", "dev", "lo")


def addresses(container: dict[str, Any]) -> list[str]:
    """Where a container is, on each of its networks."""
    return [each["IPAddress"] for each in container["NetworkSettings"]["Networks"].values()]


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
