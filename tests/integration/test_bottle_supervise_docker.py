"""Supervise on Docker: the same questions and approvals, by a door on the inner network; no rebuild is offered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.bottle_backends import Scene, scene
from tests.parts.supervised import Supervised

BOTTLE = """supervise: true
egress:
  routes:
    - host: api.test
      path_allowlist: [/a]
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
"""


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(request, "docker", tmp_path_factory.mktemp("upstream"), ("api.test",)) as made:
        yield made


def test_a_route_is_approved_for_an_agent_in_a_container(stage: Scene, tmp_path: Path) -> None:
    """SV1, SV12, SV14: it waits, it is told, and only what was approved is let out."""
    bottles = stage.bottles(tmp_path / "home", dev=BOTTLE)
    bottles.root.agent("worker", "bottle: dev\n")
    bottles.env["SUPERVISE_RESPONSE_TIMEOUT_SECONDS"] = "0.3"
    bottle = Supervised.start(bottles)
    try:
        waiting = bottle.proposed(
            "found['said'] = tool('propose_route', host='api.test', path_allowlist=['/b'], why='the manual')"
        )
        tried = "found['said'] = [status(f'https://api.test/{each}') for each in 'abc']"
        assert bottle.inside(tried)["said"] == [200, 403, 403]
        done = bottles.command("approve", waiting["id"])
        assert done.returncode == 0, done.stderr
        assert bottle.inside(tried)["said"] == [200, 200, 403]
        found = bottle.inside(
            f"""
found['status'] = tool('proposal_status', proposal={waiting["number"]})
found['tools'] = [each['name'] for each in rpc('tools/list')['result']['tools']]
found['host'] = post(b'{{}}', {{'Host': 'evil.test:8879'}})[0]
found['origin'] = post(b'{{}}', {{'Origin': 'https://evil.test'}})[0]
"""
        )
        assert found["status"]["status"] == "approved"
        assert "propose_capability_change" not in found["tools"]
        assert (found["host"], found["origin"]) == (403, 403)
    finally:
        bottle.stop()
