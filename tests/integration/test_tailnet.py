"""A real tailnet decides who may do what: whois of real connections, over TUN devices and in userspace networking."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from opsexec import Exec
from opsexec.errors import CapabilityDenied, OpsError
from tests.parts.netns import Namespaces
from tests.parts.ops_agent import EVERYTHING, TAILNET_PORT, OpsAgent
from tests.parts.process_tree import alive
from tests.parts.tailnet import ALICE, HOSTS, NODES, Tailnet
from tests.parts.tailnet_calls import rpc
from tests.parts.tailnet_raw import dialled, http_from, whoami_request
from tests.parts.waiting import eventually, eventually_now

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
OTHER_PORT = 7447
LOSS_S = 15.0
"""Seconds within which rights that are lost are lost on open connections too."""

GRANTS: list[dict[str, Any]] = [
    {"principal": f"tailnet:{ALICE}", "capabilities": EVERYTHING, "run_as": ["*"]},
    {"principal": "tailnet:tag:ci", "capabilities": ["exec:/usr/bin/id **", "fs.read:/etc/hostname"]},
    {"principal": "tailnet:tag:deploy", "capabilities": ["exec:/usr/bin/sleep **", "exec:/usr/bin/true"]},
]


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    """A node with a TUN device, and one in userspace networking."""
    return str(request.param)


@pytest.fixture(scope="module")
def agent(tailnet: Tailnet, host: str) -> Any:
    with OpsAgent(GRANTS, tailscaled=tailnet[host]) as running:
        yield running


# -- who it is ------------------------------------------------------------------------------------------------------


async def test_a_users_node_is_its_user(tailnet: Tailnet, agent: OpsAgent, host: str) -> None:
    async with rpc(tailnet, "laptop", f"tailnet://{host}") as ex:
        assert (await ex.whoami())["principal"] == f"tailnet:{ALICE}"
        assert (await ex.run(Exec(["id", "-u"]))).text.strip() == str(os.geteuid())


async def test_a_tagged_node_is_its_tags_and_each_grant_stands_for_itself(
    tailnet: Tailnet, agent: OpsAgent, host: str
) -> None:
    async with rpc(tailnet, "runner", f"tailnet://{host}") as ex:
        found = await ex.whoami()
        assert found["principal"] == "tailnet:tag:ci,tag:deploy"
        assert [len(grant["capabilities"]) for grant in found["grants"]] == [2, 2]
        await ex.run(Exec(["id", "-u"]))
        await ex.run(Exec(["true"]))
        with pytest.raises(CapabilityDenied) as denied:
            await ex.run(Exec(["cat", "/etc/hostname"]))
    assert denied.value.layer == "agent"


async def test_a_node_without_a_grant_is_denied_and_recorded_by_name(
    tailnet: Tailnet, agent: OpsAgent, host: str
) -> None:
    async with rpc(tailnet, "stranger", f"tailnet://{host}") as ex:
        with pytest.raises(CapabilityDenied, match="has no grant on this host"):
            await ex.run(Exec(["true"]))
    last = agent.records()[-1]
    assert (last["decision"], last["principal"]) == ("deny", "tailnet:bob@example.com")


async def test_every_address_of_a_node_is_that_node(tailnet: Tailnet, agent: OpsAgent, host: str) -> None:
    addresses = tailnet[host].addresses if host == "server" else tailnet[host].addresses[:1]
    for address in addresses:
        shown = f"[{address}]" if ":" in address else address
        async with rpc(tailnet, "laptop", f"agent+tcp://{shown}:{TAILNET_PORT}") as ex:
            assert (await ex.whoami())["principal"] == f"tailnet:{ALICE}"


# -- who it is not --------------------------------------------------------------------------------------------------

CLAIMS = [
    "Forwarded: for=100.64.0.4",
    "X-Forwarded-For: 127.0.0.1",
    "X-Real-IP: 100.64.0.4",
    f"Tailscale-User-Login: {ALICE}",
    f"X-Webauth-User: {ALICE}",
    f"From: {ALICE}",
    f"Cookie: principal=tailnet:{ALICE}",
    "Authorization: Basic YWxpY2U6",
    "X-Original-Host: local-tailscaled.sock",
    "Host: local-tailscaled.sock",
    "Sec-Tailscale: localapi",
    "Via: 1.1 laptop.tail.test",
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.partition(":")[0])
async def test_no_header_makes_a_stranger_somebody(tailnet: Tailnet, agent: OpsAgent, host: str, claim: str) -> None:
    said = await http_from(tailnet["stranger"], tailnet[host], whoami_request(claim))
    assert said.startswith(b"HTTP/1.1 403")
    assert b"tailnet:bob@example.com has no grant" in said
    assert agent.records()[-1]["principal"] == "tailnet:bob@example.com"


async def test_no_header_changes_who_somebody_is(tailnet: Tailnet, agent: OpsAgent, host: str) -> None:
    said = await http_from(tailnet["runner"], tailnet[host], whoami_request(*CLAIMS[:9]))
    assert b'"principal": "tailnet:tag:ci,tag:deploy"' in said


async def test_a_request_line_that_names_another_host_changes_nothing(
    tailnet: Tailnet, agent: OpsAgent, host: str
) -> None:
    request = whoami_request().replace(b"GET /v1/whoami", b"GET http://laptop.tail.test/v1/whoami")
    said = await http_from(tailnet["stranger"], tailnet[host], request)
    assert said.startswith(b"HTTP/1.1 403")


ASK_LOCALLY = """
import socket, sys
six = ":" in sys.argv[1]
link = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
link.settimeout(2)
link.setsockopt(*((socket.IPPROTO_IPV6, 78) if six else (socket.IPPROTO_IP, 15)), 1)  # IPV6_FREEBIND, IP_FREEBIND
link.bind((sys.argv[3], 0))
link.connect((sys.argv[1], int(sys.argv[2])))
link.sendall(sys.stdin.buffer.read())
said = b""
while block := link.recv(65536):
    said += block
sys.stdout.buffer.write(said)
"""


def ask_locally(
    net: Tailnet, host: str, to: str, source: str, *, user: str | None = None, port: int = TAILNET_PORT
) -> Any:
    """What a program on the host itself is answered."""
    argv = ["/usr/bin/python3", "-I", "-c", ASK_LOCALLY, to, str(port), source]
    if user is not None:
        argv = ["runuser", "-u", user, "--", *argv]
    claim = whoami_request(f"Tailscale-User-Login: {ALICE}")
    inside = Namespaces.inside(net[host].namespace, argv)
    return subprocess.run(inside, input=claim, capture_output=True, timeout=20, check=False)


@pytest.mark.parametrize("who", ["root", "a plain user"])
async def test_a_program_on_the_host_has_no_identity_through_loopback(
    tailnet: Tailnet, agent: OpsAgent, host: str, who: str, plain_user: str
) -> None:
    done = ask_locally(tailnet, host, "127.0.0.1", "127.0.0.1", user=None if who == "root" else plain_user)
    if host == "server":
        assert b"Connection refused" in done.stderr  # it listens on the node's own address alone
        return
    assert done.stdout.startswith(b"HTTP/1.1 403")
    assert (b"is no node's" if who == "root" else b"is not tailscaled's connection") in done.stdout
    assert agent.records()[-1]["principal"] is None


def test_a_program_on_the_host_is_not_the_node_it_runs_on(tailnet: Tailnet, plain_user: str) -> None:
    """Not by its own address, not by any other of the machine, and not by one that it only claims."""
    own = tailnet["server"].addresses
    alices = tailnet["laptop"].addresses
    grants = [{"principal": f"tailnet:{each}", "capabilities": EVERYTHING} for each in ("tag:server", ALICE)]
    with OpsAgent(grants, tailscaled=tailnet["server"], tailnet_port=OTHER_PORT) as agent:
        for user in (None, plain_user):
            for to, source in [(own[0], own[0]), (own[1], own[1]), (own[0], "127.0.0.1"), (own[0], "10.231.0.2")]:
                done = ask_locally(tailnet, "server", to, source, user=user, port=OTHER_PORT)
                assert done.stdout.startswith(b"HTTP/1.1 403") or not done.stdout, (source, done)
            for to, source in zip(own, alices, strict=True):
                done = ask_locally(tailnet, "server", to, source, user=user, port=OTHER_PORT)
                assert not done.stdout, (source, done)
                assert done.returncode != 0
        assert {(each["decision"], each["principal"]) for each in agent.records()} == {("deny", None)}


def test_a_neighbour_on_the_wire_reaches_nothing(tailnet: Tailnet, agent: OpsAgent, host: str) -> None:
    """From the hub, which is no node: to the node's address on the wire, and to its tailnet address by that way."""
    wire = f"10.231.0.{NODES.index(host) + 2}"
    own = tailnet[host].addresses[0]
    hub = tailnet.namespaces.hub
    subprocess.run(["ip", "-n", hub, "route", "add", f"{own}/32", "via", wire], check=True, timeout=20)
    try:
        for to in (wire, own):
            argv = ["/usr/bin/python3", "-I", "-c", ASK_LOCALLY, to, str(TAILNET_PORT), "10.231.0.1"]
            done = subprocess.run(
                Namespaces.inside(hub, argv), input=whoami_request(), capture_output=True, timeout=20, check=False
            )
            assert done.returncode != 0, done.stdout
            assert not done.stdout
    finally:
        subprocess.run(["ip", "-n", hub, "route", "del", f"{own}/32"], check=True, timeout=20)


# -- rights that are lost -------------------------------------------------------------------------------------------


async def test_a_node_that_loses_its_tag_loses_its_rights_while_its_step_runs(
    tailnet: Tailnet, agent: OpsAgent, host: str
) -> None:
    async with rpc(tailnet, "runner", f"tailnet://{host}") as ex:
        running = asyncio.create_task(ex.run(Exec(["sleep", "86399"])))
        pid = await eventually(lambda: sleeping("86399"), within_s=10, what="the step runs")
        began = time.monotonic()
        try:
            await asyncio.to_thread(tailnet.headscale.retag, "runner", "tag:ci")
            with pytest.raises(CapabilityDenied, match="no longer tailnet:tag:ci,tag:deploy"):
                async with asyncio.timeout(LOSS_S + 5):
                    await running
            took = time.monotonic() - began
            await eventually(lambda: not alive(pid or 0), within_s=3, what="its process ends")
            assert took < LOSS_S
            async with rpc(tailnet, "runner", f"tailnet://{host}") as again:
                with pytest.raises(CapabilityDenied):
                    await again.run(Exec(["sleep", "0"]))
        finally:
            await asyncio.to_thread(give_back, tailnet, host)
    denials = [each for each in agent.records() if (each["step"] or {}).get("type") == "identity"]
    assert denials[-1]["principal"] == "tailnet:tag:ci,tag:deploy"


async def test_an_idle_connection_loses_its_rights_too(tailnet: Tailnet, agent: OpsAgent, host: str) -> None:
    async with dialled(tailnet["runner"], tailnet[host]) as (reader, writer):
        writer.write(whoami_request(close=False))
        assert b"tag:deploy" in await reader.readuntil(b'"protocol"')
        began = time.monotonic()
        try:
            await asyncio.to_thread(tailnet.headscale.retag, "runner", "tag:idle")
            async with asyncio.timeout(LOSS_S + 5):
                while await reader.read(65536):
                    pass
            assert time.monotonic() - began < LOSS_S
        finally:
            await asyncio.to_thread(give_back, tailnet, host)


async def test_an_expired_node_loses_its_rights_while_its_step_runs(
    tailnet: Tailnet, agent: OpsAgent, host: str
) -> None:
    phone = tailnet["phone"]
    if phone.status()["BackendState"] != "Running":  # it expired before
        key = tailnet.headscale.key(user=tailnet.headscale.user_id("alice"))
        await asyncio.to_thread(phone.up, key, "--force-reauth")
    await eventually(lambda: phone.reaches(host), within_s=40, what="the phone is there")
    async with rpc(tailnet, "phone", f"tailnet://{host}") as ex:
        running = asyncio.create_task(ex.run(Exec(["sleep", "86398"])))
        pid = await eventually(lambda: sleeping("86398"), within_s=10, what="the step runs")
        began = time.monotonic()
        await asyncio.to_thread(tailnet.headscale.expire, "phone")
        await eventually(lambda: not alive(pid or 0), within_s=LOSS_S, what="its process ends")
        assert time.monotonic() - began < LOSS_S
        running.cancel()
        with pytest.raises((asyncio.CancelledError, OpsError)):
            await running
    denials = [each for each in agent.records() if (each["step"] or {}).get("type") == "identity"]
    assert denials[-1]["principal"] == f"tailnet:{ALICE}"
    assert "expired" in denials[-1]["reason"] or "no node's" in denials[-1]["reason"]


def sleeping(seconds: str) -> int | None:
    """The process that sleeps so long."""
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and (directory / "cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                return int(directory.name)
        except OSError:
            continue  # it has ended meanwhile
    return None


def give_back(net: Tailnet, host: str) -> None:
    """Give the runner its tags again, and wait until the host has heard."""
    net.headscale.retag("runner", "tag:ci", "tag:deploy")
    eventually_now(lambda: sees_tags(net, host, "runner", 2), within_s=20, what="the tags are back")


def sees_tags(net: Tailnet, host: str, name: str, count: int) -> bool:
    peers = net[host].status()["Peer"].values()
    return any(peer["DNSName"].startswith(f"{name}.") and len(peer.get("Tags") or ()) == count for peer in peers)


async def test_the_program_is_the_fallback_where_there_is_no_socket(tailnet: Tailnet, tmp_path: Path) -> None:
    node = tailnet["server"]
    wrapper = tmp_path / "tailscale"
    wrapper.write_text(f'#!/bin/sh\nexec {node.program} --socket={node.socket} "$@"\n')
    wrapper.chmod(0o755)
    agent = OpsAgent(GRANTS, tailscaled=node, tailnet_port=OTHER_PORT)
    text = agent.config.read_text()
    agent.config.write_text(
        text.replace(f'socket = "{node.socket}"', f'socket = "{tmp_path}/none"\nprogram = "{wrapper}"')
    )
    url = f"tailnet://server:{OTHER_PORT}"
    with agent:
        async with rpc(tailnet, "laptop", url) as ex:
            assert (await ex.whoami())["principal"] == f"tailnet:{ALICE}"
        async with rpc(tailnet, "stranger", url) as ex:
            with pytest.raises(CapabilityDenied):
                await ex.whoami()


# -- the tests' own tailnet -----------------------------------------------------------------------------------------


def test_no_node_has_a_way_out_or_speaks_to_anybody_else(tailnet: Tailnet) -> None:
    for node in tailnet.nodes.values():
        routes = inside(node.namespace, "ip", "route", "show", "default")
        assert routes == "", routes
        peers = [line.split()[-1] for line in inside(node.namespace, "ss", "-Htun").splitlines()]
        for peer in peers:
            assert peer.startswith(("10.231.0.", "127.0.0.1", "100.64.", "[fd7a:115c:a1e0:", "[::1]")), peer


def inside(namespace: str, *argv: str) -> str:
    done = subprocess.run(Namespaces.inside(namespace, argv), check=True, capture_output=True, text=True, timeout=20)
    return done.stdout


def test_ending_a_node_leaves_the_others(tailnet: Tailnet) -> None:
    assert eventually_now(lambda: tailnet["laptop"].reaches("server"), within_s=20, what="the server answers")
