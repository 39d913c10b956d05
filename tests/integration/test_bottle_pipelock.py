"""Bottles with a second hop: what leaves goes through it, and nothing goes around it when it is gone.

The real pipelock is tried where it is installed; its stand-in always is.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottle.runtime import find_pipelock
from tests.parts.bottle_backends import scene
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import SCRIPT_HEAD, TOKEN, Bottles, processes_with, require_bottles
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

FAKE = str(Path(__file__).parents[1] / "parts" / "fake_pipelock.py")
REAL = find_pipelock()
PROGRAMS = {"fake": FAKE, **({"real": REAL} if REAL else {})}
BOTTLE = """egress:
  routes:
    - host: api.test
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [127.0.0.8]}
    - host: open.test
      pipelock: {ssrf_ip_allowlist: [127.0.0.8], tls_passthrough: true}
    - host: inside.test
"""
NAMES = ("api.test", "open.test", "inside.test")


@pytest.fixture(scope="module", params=PROGRAMS)
def bottles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    require_bottles()
    port = 443 if os.getuid() == 0 else 0
    with Upstream(tmp_path_factory.mktemp("upstream"), NAMES, address="127.0.0.8", port=port) as upstream:
        root = HomeRoot(tmp_path_factory.mktemp("home") / "root")
        root.bottle("dev", BOTTLE)
        root.agent("worker", "bottle: dev\n")
        yield Bottles(root, upstream, env={"BOTTLE_PIPELOCK": PROGRAMS[request.param]})


def log_of(bottles: Bottles, identity: str) -> str:
    return (bottles.state(identity) / "bundle.log").read_text("utf-8")


def environ_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_each_dial_goes_through_the_hop_and_the_token_still_arrives(bottles: Bottles) -> None:
    ended = bottles.script(
        "worker",
        "found['api'] = get('https://api.test/v1')\n"
        "found['open'] = get('https://open.test/x')\n"
        "found['inside'] = get('https://inside.test/')\n"
        "found['evil'] = get('https://evil.test/')\n",
    )
    assert ended.code == 0, ended.stderr
    assert (ended.answers["api"][0], ended.answers["open"][0]) == (200, 200), ended.answers
    assert bottles.upstream.requests[0].header("authorization") == [f"Bearer {TOKEN}"]
    assert ended.answers["inside"][0] != 200
    log = log_of(bottles, ended.identity)
    assert f'"target":"open.test:{bottles.upstream.port}"' in log.replace(": ", ":")
    assert "inside.test" not in log.replace('"host":"inside.test"', "")  # egress' own ranges came first
    assert "evil.test" not in log
    written = json.loads((bottles.state(ended.identity) / "bundle" / "pipelock.json").read_text())
    assert written["api_allowlist"] == list(NAMES)
    assert TOKEN not in log


def test_with_the_hop_gone_nothing_leaves_until_it_is_back(bottles: Bottles) -> None:
    waits = (
        "import time, os\n"
        "def until(name):\n"
        "    while not os.path.exists(os.path.expanduser('~/' + name)): time.sleep(0.05)\n"
    )
    ask = "open(os.path.expanduser('~/{0}'), 'w').write(json.dumps(get('https://open.test/{0}')))\n"
    text = waits + ask.format("one") + "until('gone')\n" + ask.format("two") + "until('back')\n" + ask.format("three")
    before = set((bottles.root.path / "state").glob("*"))
    launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", SCRIPT_HEAD + text])
    (state,) = set((bottles.root.path / "state").glob("*")) - before
    identity = state.name
    home = state / "home"

    def answer(name: str) -> int:
        eventually_now(lambda: (home / name).exists() and (home / name).read_text() != "", within_s=40, what=name)
        found: int = json.loads((home / name).read_text())[0]
        return found

    try:
        assert answer("one") == 200
        arrived = bottles.upstream.connections
        mine = [pid for pid in processes_with(b"/run/bundle/pipelock\0run") if identity.encode() in environ_of(pid)]
        assert len(mine) == 1
        os.kill(mine[0], signal.SIGKILL)
        eventually_now(lambda: "pipelock ended unexpectedly" in log_of(bottles, identity), within_s=20, what="its end")
        (home / "gone").touch()
        assert answer("two") != 200
        assert bottles.upstream.connections == arrived
        down = "the second hop is down"  # the launcher writes it down as it reads it, beside the answer
        eventually_now(
            lambda: any(down in str(each.get("reason")) for each in bottles.audit(identity)), within_s=20, what=down
        )
        again = bottles.command("restart", identity, "pipelock")
        assert again.returncode == 0, again.stderr
        (home / "back").touch()
        assert answer("three") == 200
    finally:
        launcher.wait(40)
        launcher.communicate()


@pytest.mark.timeout(240)
def test_on_docker_too_each_dial_goes_through_the_hop(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    (tmp_path / "upstream").mkdir()
    with scene(request, "docker", tmp_path / "upstream", ("open.test",)) as where:
        front = "egress:\n  routes:\n    - host: open.test\n      pipelock: {ssrf_ip_allowlist: [ADDRESS]}\n"
        found = where.bottles(tmp_path / "home", dev=front)
        found.root.agent("worker", "bottle: dev\n")
        found.env["BOTTLE_PIPELOCK"] = FAKE
        ended = found.script("worker", "found['open'] = get('https://open.test/x')\n")
        assert ended.answers["open"][0] == 200, ended.stderr
        log = log_of(found, ended.identity).replace(": ", ":").replace(", ", ",")
        assert f'"event":"tunnel_open","target":"open.test:{where.upstream.port}"' in log
