"""agent.*: the doctor on a real ops-agent that listens on a real tailnet: config, sockets, audit and tailscaled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from opsexec import Exec
from tests.parts.ops_agent import OpsAgent
from tests.parts.tailnet import ALICE, HOSTS, Tailnet
from tests.parts.tailnet_build import tailnet_programs
from tests.parts.tailnet_calls import rpc
from tests.parts.tailscaled import Tailscaled

pytestmark = pytest.mark.timeout(120)
PORT = 7557
GRANTS = [{"principal": f"tailnet:{ALICE}", "capabilities": ["exec:/usr/bin/id **"]}]
OVER = 'mount -t overlay over -o "lowerdir=$1:/etc" /etc; mount -t overlay over -o "lowerdir=$2:/usr/bin" /usr/bin'
Doctor = Callable[[str], dict[str, dict[str, Any]]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Examines this host as one whose agent has this config, and whose programs include the tailnet's."""
    programs = tailnet_programs()
    assert programs is not None
    config = tmp_path / "etc" / "ops-agent" / "config.toml"
    config.parent.mkdir(parents=True)

    def run(text: str) -> dict[str, dict[str, Any]]:
        config.write_text(text)
        config.chmod(0o600)
        words = [sys.executable, "-m", "agent", "doctor", "local-runtime", "--only", "agent", "--format", "json"]
        argv = ["unshare", "-m", "sh", "-ec", f'{OVER}; shift 2; exec "$@"', "sh", str(tmp_path / "etc"), str(programs)]
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
        done = subprocess.run([*argv, *words], env=env, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode in (0, 1), done.stderr
        return {each["id"]: each for each in json.loads(done.stdout)["findings"]}

    return run


@pytest.fixture(params=HOSTS)
def agent(tailnet: Tailnet, request: pytest.FixtureRequest) -> Iterator[OpsAgent]:
    """One on a node with a TUN device, one in userspace networking."""
    with OpsAgent(GRANTS, tailscaled=tailnet[request.param], tailnet_port=PORT) as running:
        yield running


@pytest.mark.anyio
async def test_an_agent_that_serves_a_tailnet_passes_and_one_whose_audit_was_touched_does_not(tailnet, agent, doctor):
    node = agent.tailscaled.name
    async with rpc(tailnet, "laptop", f"tailnet://{node}:{PORT}") as ex:
        await ex.run(Exec(["id", "-u"]))
    found = doctor(agent.config.read_text())
    assert {id: each["verdict"] for id, each in found.items()} == dict.fromkeys(found, "pass"), found
    assert {"agent.config", "agent.ceiling", "agent.sockets", "agent.tailnet", "agent.audit"} <= set(found)
    assert found["agent.tailnet"]["summary"] == f"tailscaled knows this node as {node}.tail.test"
    log = agent.state / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"allow"', b'"deny"', 1))
    assert doctor(agent.config.read_text())["agent.audit"]["verdict"] == "fail"


def test_a_tailscaled_that_was_never_let_in_or_has_died_fails(tailnet, doctor, tmp_path_factory):
    programs = tailnet_programs()
    assert programs is not None
    directory = tmp_path_factory.mktemp("node")
    outsider = Tailscaled(programs, directory, "outsider", tailnet["phone"].namespace, kernel=False)
    config = f'[agent]\nlisten = ["tailnet:{PORT}"]\nstate_dir = "{directory}"\n'
    config += f'[tailnet]\nsocket = "{outsider.socket}"\n[[grants]]\nprincipal = "tailnet:{ALICE}"\n'
    config += 'capabilities = ["facts:*"]\n'
    outsider.start()
    try:
        found = doctor(config)["agent.tailnet"]
        assert found["verdict"] == "fail", found
        assert "not on its tailnet" in found["summary"]
    finally:
        outsider.end()
    found = doctor(config)["agent.tailnet"]
    assert (found["verdict"], "it has died" in found["summary"]) == ("fail", True), found
    outsider.socket.unlink()
    found = doctor(config)["agent.tailnet"]
    assert (found["verdict"], found["summary"]) == ("fail", "there is no tailscaled to ask who connects")
