"""Who a connection at the tailnet's door is: only what comes by the tailnet, and is what tailscaled says it is."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from typing import NamedTuple

import pytest

import agent.tailnet
from agent.config import TailnetTable
from agent.tailnet import Tailnet
from opsexec.hosts.local_api import TailnetUnavailable
from opsexec.hosts.tailnet_node import Address, Nobody, Node
from opsexec.hosts.tailnet_status import Peer, Status

pytestmark = pytest.mark.anyio

HERE, THERE = ipaddress.ip_address("100.64.0.9"), ipaddress.ip_address("100.64.0.4")
SIX, OTHER = ipaddress.ip_address("fd7a:115c:a1e0::4"), ipaddress.ip_address("100.64.0.10")
PORT = 7227
LAPTOP = Node("tailnet:alice@example.com", "n-laptop", "laptop.tail.test", (THERE, SIX))


class FakeConnection(NamedTuple):
    """The two ends of an accepted connection, as a socket tells them."""

    peer: tuple[str, int]
    here: tuple[str, int] = (str(HERE), PORT)

    def getpeername(self) -> tuple[str, int]:
        return self.peer

    def getsockname(self) -> tuple[str, int]:
        return self.here


class FakeTailscaled:
    """Says the same of every address."""

    def __init__(self, *, kernel: bool = True) -> None:
        self.uid: int | None = os.geteuid()
        self.node: Node | Exception = LAPTOP
        self.kernel = kernel
        self.asked: list[tuple[Address, int]] = []

    async def status(self, within_s: float) -> Status:
        return Status(Peer("n-self", "here.tail.test", (HERE,), True), (), self.kernel, "tail.test")

    async def whois(self, address: Address, port: int, within_s: float) -> Node:
        self.asked.append((address, port))
        if isinstance(self.node, Exception):
            raise self.node
        return self.node


def tailnet(monkeypatch: pytest.MonkeyPatch, tailscaled: FakeTailscaled) -> Tailnet:
    monkeypatch.setattr(agent.tailnet, "Tailscaled", lambda path, program: tailscaled)
    return Tailnet(TailnetTable(), 0)


@pytest.mark.parametrize("peer", [str(THERE), str(SIX)])
async def test_a_node_is_who_tailscaled_says_it_is(monkeypatch: pytest.MonkeyPatch, peer: str) -> None:
    tailscaled = FakeTailscaled()
    proved = await tailnet(monkeypatch, tailscaled).prove(FakeConnection((peer, 4444)))
    assert (proved.principal, proved.node, proved.passing) == (LAPTOP.principal, "n-laptop", False)
    assert tailscaled.asked == [(ipaddress.ip_address(peer), 4444)]


@pytest.mark.parametrize("peer", ["203.0.113.5", "127.0.0.1", "10.0.0.4", "::1", "fe80::4%lo", "100.63.255.255"])
async def test_what_is_no_tailnet_address_is_not_even_asked_about(monkeypatch: pytest.MonkeyPatch, peer: str) -> None:
    tailscaled = FakeTailscaled()
    tailscaled.node = LAPTOP._replace(addresses=(ipaddress.ip_address(peer),))
    proved = await tailnet(monkeypatch, tailscaled).prove(FakeConnection((peer, 4444)))
    assert proved.principal is None
    assert "is not a tailnet address" in str(proved.why)
    assert tailscaled.asked == []


@pytest.mark.parametrize(
    ("node", "here", "why"),
    [
        (LAPTOP._replace(id="n-self"), HERE, "this machine itself"),
        (LAPTOP._replace(addresses=(THERE, HERE)), OTHER, "this machine itself"),
        (LAPTOP._replace(addresses=(THERE, OTHER)), OTHER, "this machine itself"),
        (LAPTOP._replace(addresses=(SIX,)), HERE, "is not an address of laptop.tail.test"),
        (Nobody("that is nobody's"), HERE, "that is nobody's"),
    ],
)
async def test_this_machine_and_a_node_that_lacks_the_address_are_nobody(
    monkeypatch: pytest.MonkeyPatch, node: Node | Exception, here: Address, why: str
) -> None:
    tailscaled = FakeTailscaled()
    tailscaled.node = node
    proved = await tailnet(monkeypatch, tailscaled).prove(FakeConnection((str(THERE), 4444), (str(here), PORT)))
    assert (proved.principal, proved.node, proved.passing) == (None, None, False)
    assert why in str(proved.why)


@pytest.mark.parametrize("error", [TailnetUnavailable("it is being restarted"), TimeoutError()])
async def test_where_tailscaled_can_not_say_nobody_is_anybody_for_now(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tailscaled = FakeTailscaled()
    tailscaled.node = error
    proved = await tailnet(monkeypatch, tailscaled).prove(FakeConnection((str(THERE), 4444)))
    assert (proved.principal, proved.passing) == (None, True)


async def test_who_went_away_again_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    tailscaled = FakeTailscaled()
    with socket.socket() as unconnected:
        assert (await tailnet(monkeypatch, tailscaled).prove(unconnected)).principal is None
    assert tailscaled.asked == []


async def test_without_a_tun_device_a_connection_is_tailscaleds_own_or_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    tailscaled = FakeTailscaled(kernel=False)
    door = tailnet(monkeypatch, tailscaled)
    (listener,) = await door.bind()
    with listener, socket.create_connection(listener.getsockname()[:2]) as caller:
        assert listener.getsockname()[0] == "127.0.0.1"
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        with accepted:
            assert (await door.prove(accepted)).principal == LAPTOP.principal
            for uid in (os.geteuid() + 1, None):
                tailscaled.uid = uid
                assert "is not tailscaled's connection" in str((await door.prove(accepted)).why)
            tailscaled.uid = os.geteuid()
            here, port = accepted.getsockname(), caller.getsockname()[1]
            for peer, why in (
                (("127.0.0.1", port + 1 if port < 65535 else 1), "is not tailscaled's connection"),
                (("127.0.0.2", port), "did not come through tailscaled"),
                ((str(THERE), port), "did not come through tailscaled"),
            ):
                proved = await door.prove(FakeConnection(peer, here))
                assert (proved.principal, why in str(proved.why)) == (None, True)
            tailscaled.uid = None
            assert (await door.prove(FakeConnection(("127.0.0.1", 1), here))).principal is None
    assert len(tailscaled.asked) == 1
