"""What a whois answer makes of a node, and what a status makes of a name: everything unclear is nobody."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.ceiling import Ceiling
from agent.config import parse_config
from agent.errors import BadConfig
from agent.principal import alternatives
from opsexec import CapabilitySet, connect
from opsexec.errors import UsageError
from opsexec.hosts.agent_tailnet import TailnetHost
from opsexec.hosts.local_api import TailnetUnavailable
from opsexec.hosts.tailnet_node import Nobody, read_whois, tailnet_address
from opsexec.hosts.tailnet_status import read_status
from tests.parts.fake_localapi import SELF, whois_answer

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def read(**changes: Any) -> Any:
    return read_whois(json.dumps(whois_answer(**changes)).encode(), NOW)


def test_a_users_node() -> None:
    node = read()
    assert (node.principal, node.id, node.name) == ("tailnet:alice@example.com", "n-laptop", "laptop.tail.test")


TAGGED = {"ID": 1, "LoginName": "tagged-devices"}


@pytest.mark.parametrize(
    ("tags", "principal"),
    [
        (["tag:ci"], "tailnet:tag:ci"),
        (["tag:web", "tag:ci", "tag:web"], "tailnet:tag:ci,tag:web"),
    ],
)
def test_a_tagged_node_is_its_tags_never_its_user(tags: list[str], principal: str) -> None:
    assert read(Tags=tags, UserProfile=TAGGED).principal == principal
    assert read(Tags=tags).principal == principal


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Sharer": 12}, "shared in"),
        ({"Sharer": "someone"}, "shared in"),
        ({"Hostinfo": {"ShareeNode": True}}, "another tailnet"),
        ({"UnsignedPeerAPIOnly": True}, "not a full member"),
        ({"IsWireGuardOnly": True}, "not a full member"),
        ({"IsJailed": True}, "not a full member"),
        ({"Expired": True}, "expired"),
        ({"KeyExpiry": "2026-11-21T23:59:59.123456789Z"}, "expired"),
        ({"KeyExpiry": "2026-11-22T00:00:00Z"}, "expired"),
        ({"KeyExpiry": "2026-11-22T00:30:00+01:00"}, "expired"),
        ({"KeyExpiry": "2999-01-01T00:00:00"}, "not one of a node"),
        ({"KeyExpiry": "soon"}, "not one of a node"),
        ({"KeyExpiry": 5}, "not one of a node"),
        ({"Tags": ["ci"]}, "a tag that is none"),
        ({"Tags": ["tag:ci,tag:web"]}, "a tag that is none"),
        ({"Tags": ["tag:"]}, "a tag that is none"),
        ({"Tags": ["tag:ci\n"]}, "a tag that is none"),
        ({"Tags": "tag:ci"}, "a tag that is none"),
        ({"Tags": [7]}, "a tag that is none"),
        ({"UserProfile": TAGGED}, "no user and no tag"),
        ({"UserProfile": {"LoginName": ""}}, "no user and no tag"),
        ({"UserProfile": {"LoginName": "tag:ci"}}, "no user and no tag"),
        ({"UserProfile": {"LoginName": "a@b,tag:ci"}}, "no user and no tag"),
        ({"UserProfile": {"LoginName": "alice@example.com "}}, "no user and no tag"),
        ({"UserProfile": {"LoginName": "alice@example.com\n"}}, "no user and no tag"),
        ({"UserProfile": {"LoginName": None}}, "no user and no tag"),
        ({"UserProfile": {"ID": 0}}, "no user and no tag"),
        ({"Addresses": []}, "no address"),
        ({"Addresses": ["somewhere"]}, "not one of a node"),
        ({"Addresses": None}, "not one of a node"),
        ({"StableID": ""}, "no address or no id"),
        ({"Hostinfo": "x"}, "not one of a node"),
    ],
)
def test_who_is_nobody(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Nobody, match=why):
        read(**changes)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"7", b"\xff", b'{"Node": null}', b"[" * 100_000])
def test_what_is_no_answer_is_nobody(body: bytes) -> None:
    with pytest.raises(Nobody):
        read_whois(body, NOW)


def test_a_key_that_never_expires_is_current() -> None:
    assert read(KeyExpiry="0001-01-01T00:00:00Z")
    assert read(KeyExpiry=None)


# -- grants ---------------------------------------------------------------------------------------------------------

CONFIG = """\
[agent]
listen = ["tailnet:7227"]
state_dir = "/var/lib/ops-agent"
[[grants]]
principal = "tailnet:tag:ci"
capabilities = ["exec:/usr/bin/id"]
[[grants]]
principal = "tailnet:tag:web"
capabilities = ["fs.read:/srv/**"]
[[grants]]
principal = "tailnet:alice@example.com"
capabilities = ["facts:*"]
"""


@pytest.mark.parametrize(
    ("principal", "held"),
    [
        ("tailnet:tag:ci", [["exec:/usr/bin/id"]]),
        ("tailnet:tag:ci,tag:web", [["exec:/usr/bin/id"], ["fs.read:/srv/**"]]),
        ("tailnet:tag:none,tag:web", [["fs.read:/srv/**"]]),
        ("tailnet:tag:none", []),
        ("tailnet:alice@example.com", [["facts:*"]]),
        ("tailnet:alice@example.com,tag:web", []),
        ("tailnet:Alice@example.com", []),
        ("unix:alice@example.com", []),
        (None, []),
    ],
)
def test_any_of_a_nodes_tags_may_hold_a_grant_and_none_add_up(principal: str | None, held: list[list[str]]) -> None:
    grants = Ceiling(parse_config(CONFIG)).grants(principal)
    assert [each.describe() for each in grants] == held


@pytest.mark.parametrize("name", ["tag:", "tag:a,tag:b", "tag:a b", "", "a:b", "tagged-devices", "a\\tb", "tag:*"])
def test_a_grant_that_no_node_can_match_is_refused(name: str) -> None:
    with pytest.raises(BadConfig, match="no login and no tag"):
        parse_config(CONFIG.replace("tag:ci", name))


def test_a_users_principal_is_one_name() -> None:
    assert alternatives("unix:a,b") == ("unix:a,b",)


# -- names and addresses --------------------------------------------------------------------------------------------


def peer(name: str, number: int, **more: Any) -> dict[str, Any]:
    return {"ID": f"n{number}", "DNSName": name, "TailscaleIPs": [f"100.64.1.{number}"], **more}


def seen(*peers: dict[str, Any], suffix: str = "tail.test") -> Any:
    return read_status(
        {
            "BackendState": "Running",
            "TUN": True,
            "Self": SELF,
            "Peer": {f"k{number}": each for number, each in enumerate(peers)},
            "CurrentTailnet": {"MagicDNSSuffix": suffix},
        }
    )


def test_a_short_name_is_a_node_of_this_tailnet_alone() -> None:
    status = seen(peer("web.tail.test.", 1), peer("db.other.test.", 2), peer("web.other.test.", 3))
    assert status.find("web").id == "n1"
    assert status.find("WEB.Tail.test.").id == "n1"
    assert status.find("db.other.test").id == "n2"
    with pytest.raises(UsageError, match="no node of the tailnet"):
        status.find("db")


def test_a_name_that_means_several_is_refused() -> None:
    status = seen(peer("web.tail.test.", 1), peer("web.", 2), peer("web.tail.test.", 3))
    for name in ("web", "web.tail.test"):
        with pytest.raises(UsageError, match="means several nodes"):
            status.find(name)


def test_what_a_node_calls_itself_is_no_name() -> None:
    status = seen(peer("", 1, HostName="web"), peer("x.tail.test.", 2, HostName="web"), suffix="")
    with pytest.raises(UsageError, match="no node"):
        status.find("web")


@pytest.mark.parametrize("state", ["Stopped", "NeedsLogin", "Starting", "NoState", ""])
def test_a_tailscaled_that_is_not_connected_says_nothing(state: str) -> None:
    with pytest.raises(TailnetUnavailable, match="not connected"):
        read_status({"BackendState": state, "TUN": True, "Self": SELF})


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tailnet://web1", "web1", 7227),
        ("tailnet://web1.tail.ts.net:99", "web1.tail.ts.net", 99),
        ("tailnet://web1/", "web1", 7227),
        ("agent+tcp://100.64.0.3:7227", "100.64.0.3", 7227),
        ("agent+tcp://100.127.255.255", "100.127.255.255", 7227),
        ("agent+tcp://[fd7a:115c:a1e0::3]:80", "fd7a:115c:a1e0::3", 80),
    ],
)
def test_urls_of_the_tailnet(url: str, host: str, port: int) -> None:
    parsed = TailnetHost.parse(url)
    assert (parsed.label, parsed.port) == (host, port)


@pytest.mark.parametrize(
    "url",
    [
        "tailnet://",
        "tailnet://user@web1",
        "tailnet://web1:0",
        "tailnet://web1:65536",
        "tailnet://web1:x",
        "tailnet://we b",
        "tailnet://web1/path",
        "tailnet://-web",
        "tailnet://100.64.0.3",
        "tailnet://web1\r\nX: y",
        "agent+tcp://",
        "agent+tcp://web1:7227",
        "agent+tcp://127.0.0.1:7227",
        "agent+tcp://0.0.0.0:7227",
        "agent+tcp://192.168.1.5:7227",
        "agent+tcp://100.63.255.255:7227",
        "agent+tcp://100.128.0.0:7227",
        "agent+tcp://[::1]:7227",
        "agent+tcp://[::ffff:100.64.0.3]:7227",
        "agent+tcp://[fd7a:115c:a1e1::3]:7227",
        "agent+tcp://8.8.8.8:7227",
    ],
)
def test_urls_that_prove_nobody_are_refused_before_anything_is_opened(url: str) -> None:
    with pytest.raises(UsageError):
        connect(url, capabilities=CapabilitySet.nothing())


def test_tailnet_addresses() -> None:
    assert tailnet_address("100.64.0.1")
    assert tailnet_address("0100.64.0.1") is None
    assert tailnet_address("fd7a:115c:a1e0::1%eth0") is None
