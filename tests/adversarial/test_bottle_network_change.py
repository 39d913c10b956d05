"""A host that was asleep, whose network went and came back as another: nothing opens, and work goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, require_bottles
from tests.parts.lonely_internet import ADDRESS, BottlesThere, LonelyInternet, lonely_internet
from tests.parts.netns import Namespaces, can_make_namespaces
from tests.parts.upstream_tls import Upstream

pytestmark = pytest.mark.timeout(120)
BOTTLE = """egress:
  routes:
    - host: open.test
"""
WATCHING = """
import time
def until(wanted):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        came = get('https://open.test/x')[0]
        others = [get('https://evil.test/')[0]]
        others += [connects(socket.AF_INET, (host, PORT)) for host in (HOST, '127.0.0.1')]
        if (came == 200) == wanted or 200 in others or 'connected' in others:
            return [came, *others]
        time.sleep(0.05)
    return ['never']
for name, wanted in (('before', True), ('gone', False), ('back', True)):
    print(json.dumps([name, until(wanted)]), flush=True)
"""


@pytest.fixture
def internet() -> Iterator[LonelyInternet]:
    require_bottles()
    require(can_make_namespaces(), "needs root, for a network that can be taken away")
    with lonely_internet() as made:
        yield made


def change(internet: LonelyInternet, how: str) -> None:
    argv = Namespaces.inside(internet.name, ["ip", "addr", how, f"{ADDRESS}/32", "dev", "lo"])
    subprocess.run(argv, check=True, capture_output=True, timeout=20)


def test_lc9_a_network_that_goes_and_comes_back_opens_nothing(internet: LonelyInternet, tmp_path: Path) -> None:
    root = HomeRoot(tmp_path / "root")
    root.bottle("dev", BOTTLE)
    root.agent("worker", "bottle: dev\n")
    (tmp_path / "upstream").mkdir()
    upstream = Upstream(tmp_path / "upstream", ("open.test",), ADDRESS)
    internet.within(upstream.__enter__)
    try:
        bottles: Bottles = BottlesThere(root, upstream, internet=internet.name)
        head = (Path(__file__).parents[1] / "parts" / "bottle_inside.py").read_text("utf-8")
        program = f"{head}\nimport json\nHOST, PORT = {ADDRESS!r}, {upstream.port}\n{WATCHING}"
        launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", program])
        assert launcher.stdout is not None
        try:
            said = [launcher.stdout.readline()]
            # What suspends a host stops its launcher too; what it let in stays as closed as it was.
            os.kill(launcher.pid, signal.SIGSTOP)
            change(internet, "del")
            os.kill(launcher.pid, signal.SIGCONT)
            said.append(launcher.stdout.readline())
            change(internet, "add")
            said.append(launcher.stdout.readline())
        finally:
            launcher.terminate()
            launcher.communicate(timeout=30)
    finally:
        upstream.__exit__()
    assert [line.split('"')[1] for line in said] == ["before", "gone", "back"], said
    assert "[200, " in said[0]
    assert "[200, " in said[2]
    for line in said:
        assert "connected" not in line
        assert ", 200" not in line
    assert {each.path for each in upstream.requests} == {"/x"}
