"""The caller's side of a real tailnet: which node a name means, and that nobody else is spoken to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opsexec import Exec, RunOutput
from opsexec.errors import HostUnreachable, OpsError, UsageError
from opsexec.inventory import Inventory
from tests.integration.conftest import SUITE_PORT
from tests.parts.netns import Namespaces
from tests.parts.ops_agent import TAILNET_PORT, OpsAgent
from tests.parts.tailnet import Tailnet
from tests.parts.tailnet_calls import rpc

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
PROGRAMS = Path(sys.executable).parent
OTHER_PORT = 7448


@pytest.mark.parametrize("name", ["server", "SERVER", "server.tail.test", "server.tail.test."])
async def test_a_node_is_found_by_the_name_the_tailnet_gave_it(
    tailnet: Tailnet, tailnet_agent: OpsAgent, name: str
) -> None:
    async with rpc(tailnet, "laptop", f"tailnet://{name}:{SUITE_PORT}") as ex:
        assert (await ex.whoami())["host"] == "agent-under-test"


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("tailnet://nobody", UsageError, "no node of the tailnet is called"),
        ("tailnet://serve", UsageError, "no node of the tailnet is called"),
        ("tailnet://laptop", UsageError, "this machine itself"),
        ("tailnet://server.other.test", UsageError, "no node of the tailnet is called"),
        ("tailnet://stranger", HostUnreachable, "can't connect"),
        ("agent+tcp://100.127.255.254:7227", HostUnreachable, "no node of the tailnet has"),
    ],
)
async def test_what_is_not_there_is_a_typed_error(tailnet: Tailnet, url: str, kind: type[OpsError], says: str) -> None:
    async with rpc(tailnet, "laptop", url) as ex:
        with pytest.raises(kind, match=says) as failed:
            await ex.whoami()
    assert failed.value.host or isinstance(failed.value, UsageError)


def test_the_command_lines_go_over_a_tun_device(tailnet: Tailnet) -> None:
    """From the node with the TUN device, so that the programs themselves connect, to the one without."""
    grants = [{"principal": "tailnet:tag:server", "capabilities": ["exec:/usr/bin/id **"]}]
    with OpsAgent(grants, tailscaled=tailnet["relay"], tailnet_port=OTHER_PORT) as agent:
        address = tailnet["relay"].addresses[0]
        who = in_server(tailnet, "ops-agent", "whoami", "--json", f"agent+tcp://{address}:{OTHER_PORT}")
        assert json.loads(who.stdout)["principal"] == "tailnet:tag:server", who
        done = in_server(tailnet, "opsexec", "exec", f"tailnet://relay:{OTHER_PORT}", "--", "id", "-un")
        assert done.stdout.strip().endswith(b"root"), done
        denied = in_server(tailnet, "opsexec", "exec", f"tailnet://relay:{OTHER_PORT}", "--", "uname")
        assert denied.returncode == 3
        assert b"denied by the agent" in denied.stderr
        assert b"Traceback" not in denied.stderr
        assert agent.records()[-1]["principal"] == "tailnet:tag:server"


LISTEN = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("up", flush=True)
link, _ = listener.accept()
link.settimeout(10)
sys.stdout.buffer.write(b"heard: " + link.recv(65536))
"""


def test_a_way_that_does_not_lead_through_the_tailnet_is_not_taken(tailnet: Tailnet) -> None:
    """The hub claims a node's tailnet address: who connects to it there hears so, and says nothing to it."""
    address, hub = tailnet["relay"].addresses[0], tailnet.namespaces.hub
    subprocess.run(["ip", "-n", hub, "addr", "add", f"{address}/32", "dev", "lo"], check=True, timeout=20)
    listen = ["/usr/bin/python3", "-I", "-c", LISTEN, address, str(TAILNET_PORT)]
    try:
        with subprocess.Popen(Namespaces.inside(hub, listen), stdout=subprocess.PIPE) as impostor:
            assert impostor.stdout is not None
            assert impostor.stdout.readline() == b"up\n"
            done = in_server(tailnet, "ops-agent", "whoami", f"agent+tcp://{address}", namespace=hub)
            assert impostor.stdout.read() == b"heard: "
    finally:
        subprocess.run(["ip", "-n", hub, "addr", "del", f"{address}/32", "dev", "lo"], check=True, timeout=20)
    assert done.returncode == 3
    assert b"doesn't lead through the tailnet" in done.stderr


def in_server(
    net: Tailnet, program: str, *words: str, namespace: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program of ours where the server is, or elsewhere with the server's tailscaled."""
    environment = {**os.environ, "OPSEXEC_TAILSCALED_SOCKET": str(net["server"].socket), "HOME": str(net.directory)}
    argv = Namespaces.inside(namespace or net["server"].namespace, [str(PROGRAMS / program), *words])
    return subprocess.run(argv, check=False, capture_output=True, timeout=60, env=environment, cwd=net.directory)


async def test_the_tailnets_nodes_are_hosts_of_the_inventory(
    tailnet: Tailnet, tailnet_agent: OpsAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tailnet["laptop"]
    wrapper = tmp_path / "tailscale"
    wrapper.write_text(f'#!/bin/sh\nexec {net.program} --socket={net.socket} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = tmp_path / "inventory.toml"
    file.write_text('[sources]\ntailnet = { tags = ["tag:server"] }\n')
    found = (await Inventory.load(file)).hosts
    assert {name: each.url for name, each in found.items()} == {
        "server": "tailnet://server",
        "relay": "tailnet://relay",
    }
    async with rpc(tailnet, "laptop", f"{found['server'].url}:{SUITE_PORT}") as ex:
        assert isinstance(await ex.run(Exec(["true"])), RunOutput)
