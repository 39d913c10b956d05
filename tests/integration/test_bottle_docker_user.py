"""A bottle on Docker started by a plain user who may use the engine, on the Python that Debian comes with."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tests.parts.bottle_backends import Scene
from tests.parts.bottle_running import TOKEN
from tests.parts.docker_stage import engine_of
from tests.parts.docker_stage import stage as stage  # a fixture, found by name
from tests.parts.plain_bottles import plain_bottles

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

BOTTLE = """egress:
  routes:
    - host: api.test
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
"""


def test_a_plain_user_s_bottle_reaches_its_gate_and_nothing_else(
    stage: Scene, shared_dir: Path, plain_user: str
) -> None:
    engine = engine_of(stage)
    bottles = plain_bottles(shared_dir, plain_user, stage.upstream, engine=engine, dev=stage.bottle(BOTTLE))
    script = (
        "found['answers'] = [get('https://api.test/v1/x')[0] for _ in range(3)]\n"
        "found['ids'] = os.getresuid() + os.getresgid()\n"
        "open(os.path.join(os.environ['HOME'], 'made'), 'w').close()\n"
        f"found['around'] = around_the_gate({stage.upstream.port})\n"
    )
    ended = bottles.script("worker", script)
    assert ended.code == 0, ended.stderr[-2000:]
    user = pwd.getpwnam(plain_user)
    assert ended.answers["answers"] == [200, 200, 200]
    assert [each.header("authorization") for each in stage.upstream.requests] == [[f"Bearer {TOKEN}"]] * 3
    assert ended.answers["ids"] == [user.pw_uid] * 3 + [user.pw_gid] * 3
    around = ended.answers["around"]
    assert "connected" not in [*around["four"], *around["six"], *around["datagrams"]]
    made = bottles.state(ended.identity) / "home" / "made"
    assert (made.stat().st_uid, made.stat().st_gid) == (user.pw_uid, user.pw_gid)
    assert engine.labelled("ps", "bottle.identity") == []
    assert bottles.command("cleanup", "--all").returncode == 0
    assert not os.path.lexists(bottles.state(ended.identity))
