"""`python -m bench.bottle_start`: from `bottle start` to the first word of its first command, on each backend.

Beside Docker stands the floor: the same two networks and two containers, with the same daemons, made by raw calls of
the engine's API in a process that runs already. The contestants take turns; a number is the median of the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import msgspec

from bottle.authority import mint
from bottle.backends import docker as backend
from bottle.backends.base import Place
from bottle.backends.bundle import host_reads
from bottle.credentials import Credentials
from bottle.images import AgentImage
from bottle.manifest import load_object
from bottle.plan import Intent, make_plan
from bottle.runtime import find_runtime
from opsexec.handlers.container_config import config_of
from opsexec.secret import Secret, reveal
from opsexec.steps import MakeDir, WriteFile
from tests.parts.bottle_engine import DOCKERFILE, BottleEngine, bottle_engine
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import TOKEN, Bottles
from tests.parts.upstream_tls import Upstream

ROOT = Path(__file__).parents[1]
BWRAP_S = 1.2
DOCKER_RATIO = 1.5
FRONT = """egress:
  routes:
    - host: api.test
      auth: {scheme: Bearer, token_ref: API_TOKEN}
"""
FIRST = ["/bin/echo", "first"]


def timed(bottles: Bottles, argv: list[str]) -> tuple[float, float, str]:
    """Seconds until the first word of the command is here, until it is all over, and which bottle it was."""
    began = time.perf_counter()
    launcher = subprocess.Popen(argv, env=bottles.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    assert launcher.stderr is not None
    line = launcher.stdout.readline()
    first = time.perf_counter() - began
    _, said = launcher.communicate(timeout=60)
    if line != "first\n":
        raise RuntimeError(said[-2000:])
    identity = next(row.split()[1] for row in said.splitlines() if row.endswith(" is running"))
    return first, time.perf_counter() - began, identity


class Floor:
    """The same containers by raw calls. The engine's images are those that a bottle made there."""

    def __init__(self, engine: BottleEngine, home: Path) -> None:
        self._client = docker.APIClient(base_url=engine.address, version="1.41")
        self._socket = engine.socket
        self._home = home

    def once(self) -> float:
        """Seconds until the first word of the command is here."""
        identity = f"floor-{secrets.token_hex(4)}"
        route = {"host": "api.test", "auth": {"scheme": "Bearer", "token_ref": "T"}}
        root = load_object(
            {"bottles": {"dev": {"egress": {"routes": [route]}}}, "agents": {"a": {"bottle": "dev", "prompt": ""}}}
        )
        plan = make_plan(root.load("a"), Intent(identity, "docker", arguments=tuple(FIRST)))
        plan = dataclasses.replace(plan, image=AgentImage("floor", DOCKERFILE))
        place = Place(str(self._home / "state" / identity), find_runtime(), {})
        authority = mint(identity)
        held = Credentials({"EGRESS_TOKEN_0": Secret(TOKEN)})
        self._files(plan, place, authority)
        bundle = backend.bundle_run(plan, place, held, authority)
        guest = msgspec.structs.replace(backend.guest_run(plan, place), runtime=None)
        began = time.perf_counter()
        made: list[str] = []
        networks = []
        try:
            for name, inner in ((backend.names(place)["inner"], True), (backend.names(place)["outer"], False)):
                pool = docker.types.IPAMPool(subnet=backend.addresses(place)[0])
                found = self._client.create_network(
                    name, driver="bridge", internal=inner,
                    options={"com.docker.network.bridge.inhibit_ipv4": "true"} if inner else {},
                    ipam=docker.types.IPAMConfig(pool_configs=[pool]) if inner else None,
                )  # fmt: skip
                networks.append(found["Id"])
            with ExitStack() as stack:
                first, ready = self._begun(bundle, made, stack, reveal(bundle.stdin or "").encode())
                threading.Thread(target=_wait, args=(first, 3, ready), daemon=True).start()
                second, _ = self._begun(guest, made, stack, b"")
                _until(second, b"ready")
                if not ready.wait(60):
                    raise RuntimeError("the daemons didn't come up")
                run = self._client.exec_create(made[1], FIRST)
                if b"first" not in self._client.exec_start(run["Id"]):
                    raise RuntimeError("the command said nothing")
                return time.perf_counter() - began
        finally:
            for each in made:
                self._client.remove_container(each, force=True, v=True)
            for each in networks:
                self._client.remove_network(each)

    def _files(self, plan: Any, place: Place, authority: Any) -> None:
        """Write what is bound into the containers; not part of what is timed."""
        read = {step.path: Path(step.path).read_bytes() for step in host_reads() if Path(step.path).exists()}
        phases = [backend.lay_out(place), backend.bundle_files(place, read), backend.route_table(plan, place)]
        for phase in (*phases, *backend.provision(plan, place, authority)):
            for step in phase.steps:
                if isinstance(step, MakeDir):
                    Path(step.path).mkdir(parents=True, exist_ok=True)
                    os.chown(step.path, int(step.owner or 0), int(step.group or 0))
                elif isinstance(step, WriteFile):
                    Path(step.path).parent.mkdir(parents=True, exist_ok=True)
                    Path(step.path).write_bytes(step.body)
                    os.chown(step.path, int(step.owner or 0), int(step.group or 0))

    def _begun(self, step: Any, made: list[str], stack: ExitStack, told: bytes) -> tuple[Any, threading.Event]:
        sources = {path: path.rstrip("/") for path in (*step.read_only.values(), *step.writable.values())}
        config = config_of(step, sources, stdin=True, own_labels={})
        container = self._client.create_container_from_config(config, step.name)["Id"]
        made.append(container)
        for each in step.networks[1:]:
            self._client.connect_container_to_network(container, each.network, ipv4_address=each.ipv4)
        attached = stack.enter_context(self._attach(container))
        self._client.start(container)
        attached.sendall(told)
        return attached, threading.Event()

    @contextmanager
    def _attach(self, container: str) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(str(self._socket))
            target = f"/v1.41/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
            head = f"POST {target} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            made.sendall(head.encode())
            _until(made, b"\r\n\r\n")
            yield made


def _until(stream: socket.socket, word: bytes, times: int = 1) -> None:
    said = b""
    while said.count(word) < times:
        block = stream.recv(65536)
        if not block:
            raise RuntimeError(f"ended after {said[-500:]!r}")
        said += block


def _wait(stream: socket.socket, daemons: int, ready: threading.Event) -> None:
    _until(stream, b'"ready"', daemons)
    ready.set()


def memory(identity: str) -> dict[str, float]:
    """MiB that each process of a running bundle holds, shared pages counted by share (Pss)."""
    found: dict[str, float] = {}
    mark = f"BOTTLE_IDENTITY={identity}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if mark not in (entry / "environ").read_bytes() or not any(b"bottle.sidecars" in word for word in words):
                continue
            module = next(word for word in words if word.startswith(b"bottle.sidecars")).decode()
            rows = (entry / "smaps_rollup").read_text().splitlines()
        except (OSError, StopIteration):  # it ended, or is the launcher's own half
            continue
        found[module.removeprefix("bottle.sidecars.")] = round(
            sum(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024, 1
        )
    return dict(sorted(found.items()))


def held(bottles: Bottles) -> dict[str, float]:
    """The memory of the bundle of a bottle that runs."""
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    try:
        rows = json.loads(bottles.command("list", "--json").stdout)["bottles"]
        return memory(rows[0]["identity"])
    finally:
        launcher.terminate()
        launcher.communicate(timeout=60)


def measure(rounds: int) -> dict[str, Any]:
    """Run the contest: seconds by contestant."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, ExitStack() as stack:
        home = Path(name)
        engine = stack.enter_context(bottle_engine())
        (home / "upstream").mkdir()
        upstream = stack.enter_context(Upstream(home / "upstream", ("api.test",)))
        every: dict[str, Bottles] = {}
        for which, front, there in (
            ("bwrap", FRONT, None),
            ("docker", "agent_provider: {template: command, dockerfile: agent.Dockerfile}\n" + FRONT, engine),
        ):
            root = HomeRoot(home / which)
            (root.path / "agent.Dockerfile").write_text(DOCKERFILE)
            root.bottle("dev", front)
            root.agent("worker", "bottle: dev\n")
            every[which] = Bottles(root, upstream, engine=there)
        floor = Floor(engine, home / "floor")
        took: dict[str, list[float]] = {}
        for turn in range(rounds + 1):
            for which, bottles in every.items():
                first, whole, identity = timed(bottles, bottles.start_argv("worker", FIRST))
                again, _, _ = timed(bottles, bottles.argv("resume", identity, "-y", *bottles.reaching()))
                if turn:  # the first is a warm-up
                    for word, value in (("first", first), ("second", again), ("to its end", whole)):
                        took.setdefault(f"{which}, {word}", []).append(value)
            floored = floor.once()
            if turn:
                took.setdefault("docker, raw API", []).append(floored)
        seconds = {name: round(statistics.median(each), 3) for name, each in took.items()}
        ratio = round(seconds["docker, first"] / seconds["docker, raw API"], 3)
        return {
            "what": "from `bottle start` to the first word of its first command, median seconds",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0]},
            "engine": engine.docker("version", "-f", "{{.Server.Version}}").strip(),
            "rounds": rounds,
            "seconds": seconds,
            "all": {name: [round(value, 3) for value in each] for name, each in took.items()},
            "docker_vs_raw": ratio,
            "limits": {"bwrap": BWRAP_S, "docker_vs_raw": DOCKER_RATIO},
            "verdict": {
                "bwrap": "ok" if seconds["bwrap, first"] <= BWRAP_S else "MISS",
                "docker": "ok" if ratio <= DOCKER_RATIO else "MISS",
                **{
                    f"{which}, second is faster": "ok"
                    if seconds[f"{which}, second"] < seconds[f"{which}, first"]
                    else "MISS"
                    for which in every
                },
            },
            "bundle_memory_mib": {which: held(bottles) for which, bottles in every.items()},
        }


def main() -> int:
    """Measure, print, and write bench/results/bottle/start.json."""
    made = argparse.ArgumentParser(prog="python -m bench.bottle_start", description=__doc__)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--no-write", action="store_true", help="only print")
    options = made.parse_args()
    found = measure(options.rounds)
    print(json.dumps(found, indent=1))
    if not options.no_write:
        target = ROOT / "bench" / "results" / "bottle" / "start.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
