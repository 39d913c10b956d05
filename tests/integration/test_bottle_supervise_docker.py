"""Supervise on Docker: the same questions and approvals, by a door on the inner network, and the same rebuilds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec.audit import verify
from tests.parts.bottle_backends import Scene
from tests.parts.docker_stage import stage as stage  # a fixture, found by name
from tests.parts.supervised import Supervised, host_tree
from tests.parts.waiting import eventually_now

BOTTLE = """supervise: true
egress:
  routes:
    - host: api.test
      path_allowlist: [/a]
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
"""


@pytest.fixture
def tree() -> Iterator[Path]:
    with host_tree() as place:
        yield place


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
        assert "propose_capability_change" in found["tools"]
        assert (found["host"], found["origin"]) == (403, 403)
    finally:
        bottle.stop()


def test_an_approved_capability_rebuilds_the_container_and_resumes_it_in_its_home(
    stage: Scene, tmp_path: Path, tree: Path
) -> None:
    """SV5, SV12: nothing before the word of a person; what can't be mounted leaves the bottle as it was."""
    bottles = stage.bottles(tmp_path / "home", dev=BOTTLE)
    bottles.root.agent("worker", "bottle: dev\n")
    bottles.env["SUPERVISE_RESPONSE_TIMEOUT_SECONDS"] = "0.3"
    bottle = Supervised.start(bottles)
    try:
        find = "import subprocess, shutil\nfound['where'] = shutil.which('only-here')\n"
        assert bottle.inside(find + "(HOME / 'mine').write_text('kept')")["where"] is None
        waiting = bottle.proposed(f"tool('propose_capability_change', read_only={str(tree)!r}, why='the compiler')")
        assert waiting["difference"] == [f"+ host directory {tree}: read-only, its bin in PATH"]
        assert bottles.command("approve", waiting["id"]).returncode == 2
        first = container_of(stage, bottle)
        done = bottles.command("approve", waiting["id"], "--accept-risks")
        assert done.returncode == 0, done.stderr
        eventually_now(lambda: " is running" in bottle.screen, within_s=90, what="it is resumed")
        assert container_of(stage, bottle) != first
        found = bottle.inside(
            find
            + f"""
found['says'] = subprocess.run(['only-here'], capture_output=True, text=True).stdout
found['mine'] = (HOME / 'mine').read_text()
found['status'] = tool('proposal_status', proposal={waiting["number"]})
found['codes'] = [status(f'https://api.test/{{each}}') for each in 'ab']
try:
    (Path({str(tree)!r}) / 'x').write_text('')
except OSError as error:
    found['written'] = str(error)
"""
        )
        assert found["where"] == str(tree / "bin" / "only-here")
        assert (found["says"], found["mine"], found["codes"]) == ("from the tree\n", "kept", [200, 403])
        assert found["status"]["status"] == "approved"
        assert any(why in found["written"] for why in ("Read-only", "Permission denied"))  # as gVisor says it
        assert not (tree / "x").exists()
        gone = bottle.proposed(f"tool('propose_capability_change', read_only='{tree}-none', why='another')")
        before = bottle.screen.count(" is running")
        assert bottles.command("approve", gone["id"], "--accept-risks").returncode == 0
        eventually_now(lambda: bottle.screen.count(" is running") > before, within_s=90, what="it goes on")
        said = bottle.inside(f"found['said'] = tool('proposal_status', proposal={gone['number']})")["said"]
        assert said["status"] == "failed"
        assert bottle.policy()["trees"] == [str(tree)]
        assert bottle.records("decision")[-1]["decision"] == "deny"
        assert verify(bottle.state / "audit.jsonl").ok
    finally:
        bottle.stop()


def container_of(stage: Scene, bottle: Supervised) -> str:
    """The id of the agent's container now."""
    assert stage.engine is not None
    return str(stage.engine.inspect(f"bottle-{bottle.identity}-agent")[0]["Id"])
