"""A host that was asleep, whose network went and came back as another: nothing opens, and work goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import require
from tests.parts.bottle_backends import BACKENDS, scene
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, require_bottles
from tests.parts.lonely_internet import ADDRESS, BottlesThere, lonely_internet
from tests.parts.netns import Namespaces, can_make_namespaces
from tests.parts.upstream_tls import Upstream

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away
BOTTLE = """egress:
  routes:
    - host: open.test
"""
WATCHING = """
import time
def dialed(address):
    try:
        socket.create_connection(address, 1).close()
        return 'connected'
    except OSError as error:
        return type(error).__name__
def until(wanted):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        came = get('https://open.test/x')[0]
        others = [get('https://evil.test/')[0]]
        others += [dialed((host, PORT)) for host in (HOST, '127.0.0.1')]
        if (came == 200) == wanted or 200 in others or 'connected' in others:
            return [came, *others]
        time.sleep(0.05)
    return ['never']
for name, wanted in (('before', True), ('gone', False), ('back', True)):
    print(json.dumps([name, until(wanted)]), flush=True)
"""


@dataclass
class Place:
    """Bottles, and the network where their upstream's address comes and goes."""

    bottles: Bottles
    network: str

    def change(self, how: str) -> None:
        """Give the address (`add`), or take it (`del`)."""
        address = self.bottles.upstream.address
        argv = Namespaces.inside(self.network, ["ip", "addr", how, f"{address}/32", "dev", "lo"])
        subprocess.run(argv, check=True, capture_output=True, timeout=20)


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    require_bottles()
    require(can_make_namespaces(), "needs root, for a network that can be taken away")
    (tmp_path / "upstream").mkdir()
    if request.param == "docker":
        with scene(request, "docker", tmp_path / "upstream", ("open.test",)) as stage:
            assert stage.engine is not None
            granted = f"{BOTTLE}      pipelock: {{ssrf_ip_allowlist: [ADDRESS]}}\n"
            yield Place(stage.bottles(tmp_path / "root", dev=granted), stage.engine.netns)
        return
    with lonely_internet() as internet:
        root = HomeRoot(tmp_path / "root")
        root.bottle("dev", BOTTLE)
        upstream = Upstream(tmp_path / "upstream", ("open.test",), ADDRESS)
        internet.within(upstream.__enter__)
        try:
            yield Place(BottlesThere(root, upstream, internet=internet.name), internet.name)
        finally:
            upstream.__exit__()


def test_lc9_a_network_that_goes_and_comes_back_opens_nothing(place: Place) -> None:
    bottles = place.bottles
    bottles.root.agent("worker", "bottle: dev\n")
    head = (Path(__file__).parents[1] / "parts" / "bottle_inside.py").read_text("utf-8")
    upstream = bottles.upstream
    program = f"{head}\nimport json\nHOST, PORT = {upstream.address!r}, {upstream.port}\n{WATCHING}"
    launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", program])
    assert launcher.stdout is not None
    gone = False
    try:
        said = [launcher.stdout.readline()]
        # What suspends a host stops its launcher too; what it let in stays as closed as it was.
        os.kill(launcher.pid, signal.SIGSTOP)
        place.change("del")
        gone = True
        os.kill(launcher.pid, signal.SIGCONT)
        said.append(launcher.stdout.readline())
        place.change("add")
        gone = False
        said.append(launcher.stdout.readline())
    finally:
        if gone:
            place.change("add")
        launcher.terminate()
        launcher.communicate(timeout=60)
    assert [line.split('"')[1] for line in said] == ["before", "gone", "back"], said
    assert "[200, " in said[0]
    assert "[200, " in said[2]
    for line in said:
        assert "connected" not in line
        assert ", 200" not in line
    assert {each.path for each in upstream.requests} == {"/x"}
