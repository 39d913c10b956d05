"""Egress decisions: what one request may say, which address may be dialed, and which text is a secret's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from bottle.sidecars.egress.addresses import may_dial, refusal
from bottle.sidecars.egress.decide import Seen, decide_connect, decide_request, stripped
from bottle.sidecars.egress.policy import Policy, Route, read_table

SECRET = "tok-REAL-0123456789abcdef"
POLICY = Policy(
    {
        "api.test": Route("api.test", ("/v1", "/files/"), "Bearer", "EGRESS_TOKEN_0"),
        "open.test": Route("open.test"),
    }
)
GOOD = Seen(
    tunnel=("api.test", 443),
    tls=True,
    sni="api.test",
    scheme="https",
    host="api.test",
    port=443,
    authority="",
    method="GET",
    target="/v1/models",
    headers=((b"Host", b"api.test"), (b"accept", b"*/*")),
)


def with_target(target: str, host: str = "api.test") -> Seen:
    headers = ((b"Host", host.encode()),)
    return replace(GOOD, tunnel=(host, 443), sni=host, host=host, target=target, headers=headers)


def with_header(name: bytes, value: bytes) -> Seen:
    return replace(GOOD, headers=(*GOOD.headers, (name, value)))


def test_an_ordinary_request_is_let_out() -> None:
    verdict = decide_request(POLICY, GOOD)
    assert verdict.allow
    assert verdict.route is not None
    assert verdict.route.slot == "EGRESS_TOKEN_0"


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("evil.test", 443),
        ("api.test", 22),
        ("api.test", 80),
        ("api.test", 9418),
        ("API.test", 443),
        ("api.test.", 443),
        ("sub.api.test", 443),
        ("api.test.evil", 443),
        ("\u0430pi.test", 443),
        ("a_pi.test", 443),
        ("127.0.0.1", 443),
        ("0177.0.0.1", 443),
        ("0x7f000001", 443),
        ("2130706433", 443),
        ("::1", 443),
        ("::ffff:127.0.0.1", 443),
        ("fe80::1", 443),
        ("169.254.169.254", 443),
        ("api.test@evil.test", 443),
        ("evil.test#api.test", 443),
        ("", 443),
    ],
)
def test_a_tunnel_leads_to_a_granted_host_and_nowhere_else(host: str, port: int) -> None:
    """DN7, IP3-IP12, PX2, PX8, PX12."""
    assert not decide_connect(POLICY, host, port).allow


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (replace(GOOD, tunnel=None), "cleartext"),
        (replace(GOOD, tls=False, scheme="http"), "no TLS"),
        (replace(GOOD, scheme="http"), "scheme is not https"),
        (replace(GOOD, malformed=True), "head is malformed"),
        (replace(GOOD, malformed=True, tls=False, scheme=""), "no TLS"),
        (replace(GOOD, malformed=True, scheme="", host="", headers=((b"X Y", b"z"),)), "name is malformed"),
        (replace(GOOD, sni=None), "names no host"),
        (replace(GOOD, sni="evil.test"), "another host than the tunnel"),
        (replace(GOOD, sni="open.test"), "another host than the tunnel"),
        (replace(GOOD, host="evil.test"), "another host"),
        (replace(GOOD, port=8443), "another host"),
        (replace(GOOD, authority="open.test"), "another host"),
        (replace(GOOD, authority="api.test:22"), "another host"),
        (replace(GOOD, authority="x@api.test"), "another host"),
        (replace(GOOD, headers=((b"Host", b"evil.test"),)), "another host"),
        (replace(GOOD, headers=((b"Host", b"API.TEST"),)), "another host"),
        (replace(GOOD, headers=((b"Host", b"api.test"), (b"host", b"evil.test"))), "another host"),
        (replace(GOOD, headers=((b"Host", b"api.test"), (b"host", b"api.test"))), "stands twice"),
        (replace(GOOD, headers=()), "names no host"),
        (replace(GOOD, method="TRACE"), "method"),
        (replace(GOOD, method="TRACK"), "method"),
        (replace(GOOD, method="CONNECT"), "method"),
        (replace(GOOD, method="get"), "method"),
        (replace(GOOD, http_version="HTTP/0.9"), "version"),
        (replace(GOOD, http_version="HTTP/1.0"), "version"),
        (with_header(b"Transfer-Encoding", b"chunked, identity"), "transfer coding"),
        (with_header(b"Transfer-Encoding", b"xchunked"), "transfer coding"),
        (with_header(b"Content-Length", b"+5"), "length"),
        (
            replace(GOOD, headers=(*GOOD.headers, (b"content-length", b"1"), (b"transfer-encoding", b"chunked"))),
            "stands twice",
        ),
        (replace(GOOD, headers=(*GOOD.headers, (b"content-length", b"1"), (b"content-length", b"1"))), "stands twice"),
        (with_header(b"X Y", b"z"), "name is malformed"),
        (with_header(b"X\x00Y", b"z"), "name is malformed"),
        (with_header(b"X", b"a\nb"), "control character"),
        (with_header(b"X-Forwarded-Host", b"evil.test"), "x-forwarded-host"),
        (with_header(b"X-HTTP-Method-Override", b"DELETE"), "x-http-method-override"),
        (with_header(b"X-Original-URL", b"/admin"), "x-original-url"),
        (with_header(b"X_Original_URL", b"/admin"), "x_original_url"),
        (with_header(b"x-http_method-override", b"DELETE"), "x-http_method-override"),
        (with_header(b"X-Forwarded-Uri", b"/admin"), "x-forwarded-uri"),
        (with_header(b"Upgrade", b"h2c"), "upgrade"),
    ],
)
def test_a_request_has_one_host_one_length_and_one_method(seen: Seen, reason: str) -> None:
    """PX3-PX7, PX11-PX13, PX17, PX19, PX22, PX24, PX28."""
    verdict = decide_request(POLICY, seen)
    assert not verdict.allow
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/%2E./admin",
        "/v1/%252e%252e/admin",
        "/v1/..%2fadmin",
        "/v1%2f..%2fadmin",
        "/v1\\admin",
        "/v1/%5cadmin",
        "//v1/models",
        "/v1//models",
        "/v1/x#/admin",
        "/v1/%00",
        "/v1/%0d%0aX: y",
        "/V1/models",
        "/v1beta/models",
        "/v1models",
        "/admin",
        "/",
        "*",
        "http://api.test/v1/models",
        "/v1/\uff0e\uff0e/admin",
        "/v1/%ef%bc%8e%ef%bc%8e/admin",
        "/v1/..;/admin",
        "/v1/..%3B/admin",
        "/v1/..%3b%2fadmin",
        "/v1/.;x/admin",
        "/v1/%zz",
        "/v1/%",
        "/v1/%ff",
        "/v1/%6dodels",
        "/v1/a b",
        "/v1/x?api_key=mine",
        "/v1/x?a=1&access_token=mine",
        "/v1/x?a=1;KEY=mine",
        "/v1/x?%6bey=mine",
        "/files",
    ],
)
def test_a_path_is_taken_in_one_spelling_below_its_prefix(target: str) -> None:
    """PA1-PA13, CR6."""
    assert not decide_request(POLICY, with_target(target)).allow


@pytest.mark.parametrize(
    "seen",
    [
        with_target("/team/site.git/info/refs?service=git-receive-pack", "open.test"),
        with_target("/team/site.git/info/refs?service=git-upload-pack", "open.test"),
        with_target("/team/site/git-receive-pack", "open.test"),
        with_target("/team/site/%67it-upload-pack", "open.test"),
        with_target("/team/site.git/info/lfs/objects/batch", "open.test"),
        with_header(b"Content-Type", b"application/x-git-receive-pack-request"),
    ],
)
def test_gi57_git_has_one_way_and_it_is_not_this(seen: Seen) -> None:
    verdict = decide_request(POLICY, seen)
    assert "git gate" in verdict.reason


@pytest.mark.parametrize("target", ["/v1/x", "/v1/x?page=2", "/v1/x?page=2&page=3"])
def test_a_query_has_the_parameters_its_route_names(target: str) -> None:
    """PA15."""
    row = {"host": "api.test", "path_allowlist": ["/v1"], "scheme": None, "slot": None, "private": []}
    policy = read_table([{**row, "methods": ["GET"], "query": ["page"]}])
    assert decide_request(policy, with_target(target)).allow
    more = target + ("&" if "?" in target else "?") + "repo=x"
    assert "parameter" in decide_request(policy, with_target(more)).reason
    assert "methods" in decide_request(policy, replace(with_target(target), method="DELETE")).reason


@pytest.mark.parametrize("query", ["_method=DELETE", "a=b&X-HTTP-Method-Override=PUT", "%5fmethod=put"])
def test_a_query_doesn_t_stand_for_another_method(query: str) -> None:
    """PA15."""
    row = {"host": "api.test", "path_allowlist": ["/v1"], "scheme": None, "slot": None, "private": []}
    policy = read_table([{**row, "methods": ["GET", "POST"]}])
    assert decide_request(policy, with_target(f"/v1/x?{query}")).reason == "the query names another method"
    assert decide_request(read_table([row]), with_target(f"/v1/x?{query}")).allow


@pytest.mark.parametrize("target", ["/v1", "/v1/", "/v1/models?limit=5&q=a%20b", "/files/a%20b.txt", "/v1/%E2%82%AC"])
def test_ordinary_paths_pass(target: str) -> None:
    assert decide_request(POLICY, with_target(target)).allow


@pytest.mark.parametrize(
    "target", ["/@scope%2fname", "/simple/pkg/", "/x?key=public", "/a/b%2Db", "/?filter[name]=x|y", "/~user/%7Euser"]
)
def test_a_host_without_prefixes_takes_what_real_clients_send(target: str) -> None:
    assert decide_request(POLICY, with_target(target, "open.test")).allow


def test_what_proves_who_the_agent_is_doesn_t_go_on() -> None:
    """CR6: everywhere its Authorization, and where a credential is injected any account of its own."""
    headers = [
        (b"Authorization", b"Bearer mine"),
        (b"Cookie", b"a=b"),
        (b"X-Api-Key", b"k"),
        (b"Proxy-Authorization", b"p"),
        (b"Connection", b"x-secret, keep-alive"),
        (b"X-Secret", b"hop"),
        (b"Accept", b"*/*"),
    ]
    injected = [name.lower() for name, _ in stripped(headers, POLICY.routes["api.test"])]
    assert injected == [b"connection", b"accept"]
    underscored = [(b"X_Api_Key", b"k"), (b"Private_Token", b"t"), (b"Accept", b"*/*")]
    assert [name for name, _ in stripped(underscored, POLICY.routes["api.test"])] == [b"Accept"]
    plain = [name.lower() for name, _ in stripped(headers, POLICY.routes["open.test"])]
    assert plain == [b"cookie", b"x-api-key", b"connection", b"accept"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [(b"X-Real-Ip, keep-alive", b"keep-alive"), (b"Upgrade", b"Upgrade"), (b"close,te", b"close, te"), (b"x", None)],
)
def test_a_connection_names_only_what_ends_here(said: bytes, kept: bytes | None) -> None:
    """PX19: a header that it named would be taken away behind the gate, where another proxy adds one of that name."""
    found = stripped([(b"Connection", said)], POLICY.routes["open.test"])
    assert found == ([] if kept is None else [(b"Connection", kept)])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "168.63.129.16",
        "0.0.0.0", "255.255.255.255", "224.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::", "ff02::1", "nonsense",
        "0.1.2.3", "192.0.0.9", "192.88.99.1", "198.18.0.1", "198.19.255.255", "240.0.0.1", "::127.0.0.1", "100::1",
        "64:ff9b:1::1", "2001:1ff::1", "2001:db8::1", "2002::1", "3fff::1", "5f00::1", "fec0::1", "127.1", "",
    ],
)  # fmt: skip
def test_a_name_may_not_lead_inside(address: str) -> None:
    """DN8, IP5, IP12."""
    route = Route("api.test")
    assert not may_dial(address, route)
    assert refusal(["93.184.216.34", address], route) is not None


def test_no_address_of_ipv6_may_be_dialed_but_those_that_are_given_out() -> None:
    """IP12: 2000::/3 is what is routed among networks; whatever else answers is nearer than that."""
    for group in range(0, 0x10000, 0x10):
        if not 0x2000 <= group < 0x4000:
            for address in (f"{group:x}::1", f"{group | 0xF:x}:ffff::1"):
                assert not may_dial(address, Route("api.test")), address


def test_public_addresses_and_granted_private_ones_may_be_dialed() -> None:
    granted = read_table(
        [{"host": "x", "path_allowlist": None, "scheme": None, "slot": None, "private": ["10.1.0.0/16"]}]
    ).routes["x"]
    assert refusal(["93.184.216.34", "2606:2800:220:1::1", "10.1.2.3"], granted) is None
    assert refusal(["::ffff:10.1.2.3"], granted) is None
    assert refusal(["10.2.0.1"], granted) is not None
    assert refusal([], granted) is not None


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"host": "A.x", "path_allowlist": None, "scheme": None, "slot": None, "private": []},
        {"host": "a.x", "path_allowlist": [], "scheme": None, "slot": None, "private": []},
        {"host": "a.x", "path_allowlist": None, "scheme": "Bearer", "slot": None, "private": []},
        {"host": "a.x", "path_allowlist": None, "scheme": "Basic", "slot": "S", "private": []},
        {"host": "a.x", "path_allowlist": None, "scheme": None, "slot": None, "private": ["x"]},
        {"host": "a.x", "path_allowlist": None, "scheme": None, "slot": None, "private": [], "methods": []},
        {"host": "a.x", "path_allowlist": None, "scheme": None, "slot": None, "private": [], "methods": ["TRACE"]},
        {"host": "a.x", "path_allowlist": None, "scheme": None, "slot": None, "private": [], "query": ["a", 1]},
        {"host": "a.x", "path_allowlist": ["/v1", 1], "scheme": None, "slot": None, "private": []},
        {"host": "", "path_allowlist": None, "scheme": None, "slot": None, "private": []},
        {"host": "a.x", "path_allowlist": None, "scheme": None, "slot": None, "private": [], "more": None},
        {"host": "a.x", "path_allowlist": None, "scheme": None, "slot": None, "private": 5},
        {"host": "a.x", "path_allowlist": None, "scheme": None, "slot": None, "private": [], "methods": [["GET"]]},
        7,
    ],
)
def test_a_table_of_another_shape_is_no_policy(row: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_table([row])


@pytest.mark.parametrize("table", [None, 7, "routes", {"routes": []}])
def test_what_is_no_table_is_no_policy(table: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_table(table)


def test_a_table_grants_what_it_says_and_no_host_twice() -> None:
    row = {"host": "a.x", "path_allowlist": ["/v1"], "scheme": "token", "slot": "S", "private": ["10.0.0.0/8"]}
    row |= {"methods": ["GET", "HEAD"], "query": ["page"]}
    found = read_table([row, {**row, "host": "b.x", "path_allowlist": None, "methods": None, "query": None}]).routes
    private = (ip_network("10.0.0.0/8"),)
    assert found["a.x"] == Route(
        "a.x", ("/v1",), "token", "S", private, frozenset({"GET", "HEAD"}), frozenset({"page"})
    )
    assert found["b.x"] == Route("b.x", None, "token", "S", private)
    with pytest.raises(ValueError, match="stands twice"):
        read_table([row, {**row, "path_allowlist": None}])
