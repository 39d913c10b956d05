"""What stands beside a bottle: its host's services and sockets, another bottle's agent and gates. Nobody is reached.

Each neighbour is the test's own and counts its visitors; the host is a network namespace with a public address.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import TOKEN, Bottles, require_bottles
from tests.parts.lonely_internet import ADDRESS, BottlesThere, LonelyInternet, lonely_internet
from tests.parts.netns import Namespaces, can_make_namespaces
from tests.parts.upstream_tls import Upstream

pytestmark = pytest.mark.timeout(120)
ROUTE = """egress:
  routes:
    - host: {}.test
      auth: {{scheme: Bearer, token_ref: API_TOKEN}}
"""
SOCKETS = {
    "SSH_AUTH_SOCK": "ssh-agent.sock", "DBUS_SESSION_BUS_ADDRESS": "bus", "GPG_AGENT_INFO": "S.gpg-agent",
    "DOCKER_HOST": "docker.sock", "WAYLAND_DISPLAY": "wayland-0", "XDG_RUNTIME_DIR": "", "DISPLAY": "X0",
    "TS_SOCKET": "tailscaled.sock", "CONTAINER_HOST": "podman.sock",
}  # fmt: skip
"""Variables of an operator's session, and the socket each leads to here."""
ABSTRACT = ("/containerd-shim/test.sock", "/tmp/dbus-test", "/tmp/.X11-unix/X0")

LISTENING = """
import socket, threading
def serve(made):
    while True:
        came, _ = made.accept()
        open('/home/agent/visited', 'a').write('x')
        came.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n'); came.close()
made = socket.create_server(('0.0.0.0', 5173))
threading.Thread(target=serve, args=[made], daemon=True).start()
for name in ('\\0neighbour', '/tmp/neighbour.sock'):
    made = socket.socket(socket.AF_UNIX); made.bind(name); made.listen()
    threading.Thread(target=serve, args=[made], daemon=True).start()
import time
print('listening', flush=True)
time.sleep(600)
"""

TRYING = """
def unix(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(3)
        try:
            made.connect(path); return 'connected'
        except OSError as error:
            return type(error).__name__
def through(host, port):
    raw, said = tunnel(host, port)
    raw.close()
    return said.split('\\r\\n')[0]
found['direct'] = {f'{host}:{port}': connects(socket.AF_INET, (host, port)) for host, port in DIRECT}
found['six'] = [connects(socket.AF_INET6, (host, port)) for host, port in SIX]
found['gate'] = {f'{host}:{port}': through(host, port) for host, port in GATE}
found['abstract'] = [unix('\\0' + name) for name in ABSTRACT]
found['files'] = [unix(path) for path in FILES]
found['sockets'] = subprocess.run(['find', '/', '-xdev', '-type', 's'], capture_output=True, text=True).stdout.split()
for top in ('/run', '/tmp', '/home', '/var'):
    found['sockets'] += subprocess.run(['find', top, '-type', 's'], capture_output=True, text=True).stdout.split()
found['environ'] = dict(os.environ)
names = [line.split()[7:] for line in open('/proc/net/unix').read().splitlines()[1:]]
found['bound'] = [name[0] for name in names if name]
found['own'] = get('https://mine.test/x')[0]
found['theirs'] = get('https://theirs.test/x')[0]
"""


@dataclass
class Neighbour:
    """A listener of the test's own. `visits`: how many connections came."""

    made: socket.socket
    visits: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                came, who = self.made.accept()
            except OSError:
                return
            self.visits.append(who)
            came.close()

    @property
    def port(self) -> int:
        return int(self.made.getsockname()[1])


@dataclass
class Scene:
    """What one bottle said it could reach, and what those who stand beside it have seen."""

    answers: dict[str, Any]
    everywhere: Neighbour
    loopback: Neighbour
    sockets: list[Neighbour]
    theirs: Bottles
    theirs_identity: str
    upstream: Upstream
    listening_before: set[str]
    listening_while: set[str]


def listening(internet: LonelyInternet) -> set[str]:
    """Every TCP and UDP address that somebody listens on in the host's namespace."""
    argv = Namespaces.inside(internet.name, ["ss", "-lntuH"])
    out = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
    return {line.split()[4] for line in out.splitlines()}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    require_bottles()
    require(can_make_namespaces(), "needs root, for a network namespace that stands for the host")
    directory = tmp_path_factory.mktemp("neighbours")
    with ExitStack() as stack:
        internet = stack.enter_context(lonely_internet())
        upstream = Upstream(tmp_path_factory.mktemp("upstream"), ("mine.test", "theirs.test"), ADDRESS)
        internet.within(upstream.__enter__)
        stack.callback(upstream.__exit__)
        everywhere = Neighbour(internet.within(lambda: socket.create_server(("0.0.0.0", 0))))
        loopback = Neighbour(internet.within(lambda: socket.create_server(("127.0.0.1", 0))))
        sockets = [Neighbour(internet.within(partial(unix_server, f"\0{name}"))) for name in ABSTRACT]
        env, files = {}, []
        for name, leaf in SOCKETS.items():
            path = directory / leaf
            env[name] = f"unix:path={path}" if name.startswith("DBUS") else str(path)
            if leaf:
                sockets.append(Neighbour(unix_server(str(path))))
                files.append(str(path))
        for each in (everywhere, loopback, *sockets):
            stack.callback(each.made.close)

        root = HomeRoot(directory / "root")
        for name in ("mine", "theirs"):
            root.bottle(name, ROUTE.format(name))
            root.agent(name, f"bottle: {name}\n")
        before = listening(internet)
        bottles = BottlesThere(root, upstream, env={**env, "DOCKER_HOST": ""}, internet=internet.name)
        other = bottles.begin("theirs", ["/usr/bin/python3", "-c", LISTENING])
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "listening\n"
            (theirs,) = [each.name for each in (root.path / "state").iterdir()]
            doors = [str(path) for path in bottles.state(theirs).rglob("*.sock")]
            ports = (everywhere.port, loopback.port, upstream.port, 5173, 8877, 8878)
            hosts = (ADDRESS, "127.0.0.1", "127.0.0.2", "10.231.0.1", "172.17.0.1", "0.0.0.0")
            names = (
                "host.docker.internal",
                "host.containers.internal",
                "gateway.docker.internal",
                "bundle",
                "localhost",
            )
            direct = [
                (host, port) for host in hosts for port in ports if not (host[:3] in ("127", "0.0") and port == 8877)
            ]
            given = {
                "DIRECT": direct,
                "SIX": [(f"::ffff:{ADDRESS}", everywhere.port), ("::1", loopback.port), ("fe80::1", everywhere.port)],
                "GATE": [(host, port) for host in (*hosts, *names, "theirs.test") for port in (*ports[:2], 443)],
                "ABSTRACT": [*ABSTRACT, "neighbour"],
                "FILES": [
                    *files,
                    *doors,
                    "/tmp/neighbour.sock",
                    "/var/run/docker.sock",
                    "/run/containerd/containerd.sock",
                ],
            }
            text = "".join(f"{name} = {value!r}\n" for name, value in given.items()) + TRYING
            ended_then = threading.Event()
            seen: list[set[str]] = []

            def watch() -> None:
                while not ended_then.wait(0.05):
                    seen.append(listening(internet))

            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                ended = bottles.script("mine", text)
            finally:
                ended_then.set()
                watcher.join()
            assert ended.code == 0, ended.stderr
        finally:
            other.terminate()
            other.communicate(timeout=30)
        yield Scene(
            ended.answers, everywhere, loopback, sockets, bottles, theirs, upstream, before, set().union(*seen)
        )  # fmt: skip


def unix_server(name: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(name)
    made.listen()
    return made


def direct(scene: Scene, port: int) -> set[str]:
    """What came of every attempt at a port, by whichever address."""
    return {came for target, came in scene.answers["direct"].items() if target.endswith(f":{port}")}


def test_the_bottle_itself_works(scene: Scene) -> None:
    assert scene.answers["own"] == 200
    assert [each.header("authorization") for each in scene.upstream.requests] == [[f"Bearer {TOKEN}"]]


def test_nb1_a_service_of_the_host_on_every_address_has_no_visitor(scene: Scene) -> None:
    assert scene.everywhere.visits == []
    assert "connected" not in direct(scene, scene.everywhere.port)
    assert "connected" not in scene.answers["six"]
    assert all(" 403 " in said for said in scene.answers["gate"].values())


def test_nb2_the_host_s_loopback_has_no_visitor_by_any_name(scene: Scene) -> None:
    assert scene.loopback.visits == []
    assert "connected" not in direct(scene, scene.loopback.port)


def test_nb3_nb7_another_bottle_s_agent_and_its_ports_have_no_visitor(scene: Scene) -> None:
    assert not (scene.theirs.state(scene.theirs_identity) / "home" / "visited").exists()
    assert "connected" not in direct(scene, 5173)


def test_nb4_another_bottle_s_gates_decide_nothing_for_this_one(scene: Scene) -> None:
    assert scene.answers["theirs"] in (0, 403)
    assert scene.theirs.audit(scene.theirs_identity) == []
    assert "connected" not in scene.answers["files"]


def test_nb6_the_bundle_listens_on_no_address_of_the_host(scene: Scene) -> None:
    assert scene.listening_while == scene.listening_before
    assert "connected" not in direct(scene, 8878)


def test_nb8_no_engine_s_socket_as_file_or_name(scene: Scene) -> None:
    assert all(each.visits == [] for each in scene.sockets)
    assert "connected" not in scene.answers["abstract"]
    # What is there is this bottle's own doors, and nothing else.
    assert {Path(path).parent.as_posix() for path in scene.answers["sockets"]} <= {"/run/bottle/doors"}
    assert not [name for name in scene.answers["bound"] if name.startswith("@") or "docker" in name]


def test_nb9_nothing_of_the_operator_s_session(scene: Scene) -> None:
    assert set(SOCKETS) & set(scene.answers["environ"]) == set()
    assert "connected" not in scene.answers["files"]
    assert TOKEN not in json.dumps(scene.answers["environ"])
