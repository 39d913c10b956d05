"""SV15: what a person approves for a bottle on another host, when the link to it is gone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.bottle_running import Bottles, egress_environment
from tests.parts.ops_agent import OpsAgent
from tests.parts.supervised import Supervised
from tests.parts.supervised_bottles import HELD_AND_OPEN, supervised_bottles
from tests.parts.waiting import eventually_now


@pytest.fixture(scope="module")
def bottles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    manifests = {"dev": HELD_AND_OPEN}
    with supervised_bottles(request, tmp_path_factory, ("api.test", "open.test"), manifests, answer_s=0.3) as made:
        yield made


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["cut", "hung"])
def test_SV15_an_approval_over_a_lost_link_grants_nothing(
    bottles: Bottles, tmp_path: Path, how: signal.Signals
) -> None:
    """The bottle is on another host; the link to it is cut, or hangs, before a person says yes."""
    far = tmp_path / "far"
    far.mkdir(mode=0o700)
    with OpsAgent() as there:
        reaching = ["--host", there.url, "--host-dir", str(far), "--host-env", str(egress_environment().resolve())]
        hosted = Bottles(bottles.root, bottles.upstream, env=bottles.env, reaching_also=reaching)
        bottle = Supervised.start(hosted)
        bottle.kept_at = far / bottle.identity
        table = far / bottle.identity / "bundle" / "routes.json"
        try:
            waiting = bottle.proposed("tool('propose_route', host='open.test', path_allowlist=['/far'], why='w')")
            before = table.read_text()
            os.kill(there.pid, how)
            done = bottles.command("approve", waiting["id"], "--accept-risks")
            assert done.returncode in (1, 2), done.stdout
            assert table.read_text() == before
            eventually_now(lambda: bottle.launcher.poll() is not None, within_s=60, what="the bottle ends")
        finally:
            if how is signal.SIGSTOP:
                os.kill(there.pid, signal.SIGCONT)
            bottle.stop()
        assert table.read_text() == before
        assert "/far" not in json.dumps(bottle.policy())
        assert not any(each["status"] == "approved" for each in bottle.kept())
