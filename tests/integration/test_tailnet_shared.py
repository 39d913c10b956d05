"""Nodes of other tailnets, as a real tailscaled shows them: whoever is shared in, or shared with, is nobody here."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.conftest import require
from tests.parts.netns import can_make_namespaces
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.shared_tailnet import SharedTailnet
from tests.parts.tailnet_build import tailnet_programs
from tests.parts.tailnet_raw import dialled, http_from, whoami_request
from tests.parts.waiting import eventually, eventually_now

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
LOSS_S = 15.0
"""Seconds within which rights that are lost are lost on open connections too."""

GUEST = "user-2@fake-control.example.net"
"""What the control server calls its second node's user."""

GRANTS: list[dict[str, Any]] = [{"principal": f"tailnet:{GUEST}", "capabilities": EVERYTHING, "run_as": ["*"]}]

FOREIGN: list[tuple[Literal["sharer", "sharee"], str]] = [
    ("sharer", "is shared in from another tailnet"),
    ("sharee", "is of another tailnet, which this one shares with"),
]


@pytest.fixture(scope="module")
def net() -> Iterator[SharedTailnet]:
    with SharedTailnet(built()) as running:
        yield running


def built() -> Path:
    """Where the tailnet's programs are."""
    programs = tailnet_programs()
    require(programs is not None, "needs the tailnet's programs (scripts/tailnet.sh builds them, with go on PATH)")
    require(can_make_namespaces(), "needs root, network namespaces and /dev/net/tun")
    assert programs is not None
    return programs


@pytest.fixture(scope="module")
def agent(net: SharedTailnet) -> Iterator[OpsAgent]:
    """It grants the guest everything, by the name its login has."""
    with OpsAgent(GRANTS, tailscaled=net.host) as running:
        yield running


async def asked(net: SharedTailnet, *claims: str) -> bytes:
    """What the agent tells the guest."""
    return await http_from(net.guest, net.host, whoami_request(*claims))


async def own_again(net: SharedTailnet) -> None:
    """Have the guest be of this tailnet, and wait until the agent says so."""
    await asyncio.to_thread(net.see_guest, "own")
    await told(net, f'"principal": "tailnet:{GUEST}"')


async def told(net: SharedTailnet, words: str) -> bytes:
    """Ask until the agent's answer has these words in it, and return it: what a node is told takes a moment."""
    async with asyncio.timeout(30):
        while True:
            said = await asked(net, f"Tailscale-User-Login: {GUEST}")
            if words.encode() in said:
                return said


@pytest.mark.parametrize(("seen_as", "why"), FOREIGN, ids=[each for each, _ in FOREIGN])
async def test_a_node_of_another_tailnet_is_nobody_whatever_its_login_is_granted(
    net: SharedTailnet, agent: OpsAgent, seen_as: Literal["sharer", "sharee"], why: str
) -> None:
    await own_again(net)
    await asyncio.to_thread(net.see_guest, seen_as)
    said = await told(net, why)
    assert said.startswith(b"HTTP/1.1 403")
    last = agent.records()[-1]
    assert (last["decision"], last["principal"]) == ("deny", None)
    assert why in last["reason"]


async def test_a_node_that_turns_out_to_be_shared_in_loses_its_open_connection(
    net: SharedTailnet, agent: OpsAgent
) -> None:
    await own_again(net)
    async with dialled(net.guest, net.host) as (reader, writer):
        writer.write(whoami_request(close=False))
        assert GUEST.encode() in await reader.readuntil(b'"protocol"')
        began = time.monotonic()
        await asyncio.to_thread(net.see_guest, "sharer")
        async with asyncio.timeout(LOSS_S + 5):
            while await reader.read(65536):
                pass
        assert time.monotonic() - began < LOSS_S
    denials = [each for each in agent.records() if (each["step"] or {}).get("type") == "identity"]
    assert denials[-1]["principal"] == f"tailnet:{GUEST}"
    assert "shared in" in denials[-1]["reason"]


async def test_an_agent_is_there_again_after_tailscaled_was_restarted() -> None:
    """Its interface is another one then, which a listener that is bound to the first hears nothing of."""
    with SharedTailnet(built()) as net, OpsAgent(GRANTS, tailscaled=net.host) as agent:
        assert (await asked(net)).startswith(b"HTTP/1.1 200")
        await asyncio.to_thread(net.host.stop)
        await eventually(lambda: "interface has gone" in agent.said(), within_s=20, what="it is noticed")
        await asyncio.to_thread(net.host.start)
        await eventually(lambda: "listening on the tailnet again" in agent.said(), within_s=30, what="it listens again")
        await asyncio.to_thread(eventually_now, lambda: net.guest.reaches("host"), within_s=40, what="there is a way")
        assert (await asked(net)).startswith(b"HTTP/1.1 200")


def test_what_tailscaled_says_of_a_shared_node_is_what_we_read(net: SharedTailnet) -> None:
    """The words that a stand-in for it uses elsewhere in these tests are the real ones."""
    net.see_guest("sharer")
    sharer = eventually_now(lambda: node_of_guest(net).get("Sharer"), within_s=20, what="a sharer")
    assert isinstance(sharer, int)
    net.see_guest("sharee")
    eventually_now(
        lambda: (node_of_guest(net).get("Hostinfo") or {}).get("ShareeNode") is True, within_s=20, what="a sharee"
    )


def node_of_guest(net: SharedTailnet) -> dict[str, Any]:
    """What the host's tailscaled says of the guest."""
    found = json.loads(net.host.run("whois", "--json", f"{net.guest.addresses[0]}:1"))["Node"]
    assert isinstance(found, dict)
    return found
