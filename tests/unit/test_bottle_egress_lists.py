"""Each name, character and bound of the egress decisions by itself: one that fell out of its list would be let out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bottle.sidecars.egress.decide import Seen, decide_connect, decide_host, decide_request, malformed_target, stripped
from bottle.sidecars.egress.decide import under as below
from bottle.sidecars.egress.policy import Policy, Route

INJECTED = Route("api.test", ("/v1",), "Bearer", "EGRESS_TOKEN_0")
FREE = Route("open.test")
NARROW = Route("narrow.test", methods=frozenset({"GET"}))
POLICY = Policy({each.host: each for each in (INJECTED, FREE, NARROW)})

IDENTITY = [b"Authorization", b"Proxy-Authorization", b"X-Authorization", b"X-Forwarded-Authorization",
            b"X-Original-Authorization"]  # fmt: skip
ACCOUNT = [b"Cookie", b"Cookie2", b"X-Api-Key", b"Api-Key", b"ApiKey", b"X-Goog-Api-Key", b"X-Auth-Token",
           b"X-Access-Token", b"Private-Token", b"Job-Token", b"X-Amz-Security-Token", b"OpenAI-Organization",
           b"OpenAI-Project"]  # fmt: skip
HOP = [b"Proxy-Connection", b"Alt-Used", b"Alt-Svc"]


def asked(host: str = "open.test", target: str = "/v1/x", *headers: tuple[bytes, bytes]) -> Seen:
    return Seen((host, 443), True, host, "https", host, 443, "", "GET", target, ((b"Host", host.encode()), *headers))


def why_not(seen: Seen) -> str:
    """Why a request is refused; "" for one that isn't."""
    verdict = decide_request(POLICY, seen)
    assert verdict.allow == (verdict.reason == "route")
    assert verdict.allow == (verdict.route is not None)
    return "" if verdict.allow else verdict.reason


@pytest.mark.parametrize("name", IDENTITY)
def test_an_identity_goes_nowhere_in_either_spelling(name: bytes) -> None:
    for spelled in (name, name.lower(), name.replace(b"-", b"_")):
        for route in (INJECTED, FREE):
            assert stripped([(spelled, b"mine")], route) == []


@pytest.mark.parametrize("name", [*ACCOUNT, b"Range", b"If-Range"])
def test_an_account_of_its_own_goes_only_where_no_credential_is_injected(name: bytes) -> None:
    for spelled in (name, name.lower(), name.replace(b"-", b"_")):
        assert stripped([(spelled, b"mine")], INJECTED) == []
        assert stripped([(spelled, b"mine")], FREE) == [(spelled, b"mine")]


@pytest.mark.parametrize("name", HOP)
def test_what_is_for_a_proxy_ends_here(name: bytes) -> None:
    assert stripped([(name, b"x"), (b"Accept", b"*/*")], FREE) == [(b"Accept", b"*/*")]


@pytest.mark.parametrize("name", [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Trailer", b"Upgrade"])
def test_what_ends_with_a_hop_by_itself_may_be_named_so(name: bytes) -> None:
    assert stripped([(b"Connection", name)], FREE) == [(b"Connection", name)]
    if name not in (b"Connection", b"Proxy-Connection"):
        assert (name, b"x") in stripped([(b"Connection", name), (name, b"x")], FREE)


def test_a_header_that_the_connection_names_is_gone_and_what_follows_it_stays() -> None:
    headers = [(b"Connection", b"x-one,  close"), (b"X-One", b"1"), (b"X-Two", b"2")]
    assert stripped(headers, FREE) == [(b"Connection", b"close"), (b"X-Two", b"2")]
    assert stripped([(b"Connection", b"x-one"), (b"X-Two", b"2")], FREE) == [(b"X-Two", b"2")]


@pytest.mark.parametrize("name", [b"host", b"content-length", b"transfer-encoding", b"expect"])
def test_what_frames_a_request_is_not_said_to_end_here_and_has_one_spelling(name: bytes) -> None:
    for said in (name, b"close, " + name, name.upper() + b" ,x"):
        assert "Connection header" in why_not(asked("open.test", "/", (b"CONNECTION", said)))
    assert why_not(asked("open.test", "/", (b"X-Names", name))) == ""
    if b"-" in name:
        assert "misspelled" in why_not(asked("open.test", "/", (name.replace(b"-", b"_"), b"1")))


@pytest.mark.parametrize(
    "name",
    ["Forwarded", "X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-Host", "X-Original-URL",
     "X-Original-URI", "X-Forwarded-URI", "X-Rewrite-URL", "X-HTTP-Method", "X-HTTP-Method-Override",
     "X-Method-Override"],
)  # fmt: skip
def test_no_header_leads_elsewhere(name: str) -> None:
    for spelled in (name, name.lower(), name.replace("-", "_")):
        assert (
            why_not(asked("open.test", "/", (spelled.encode(), b"x")))
            == f"the header {spelled.lower()} is not forwarded"
        )


@pytest.mark.parametrize(
    "name",
    ["key", "api_key", "apikey", "api-key", "access_token", "accesstoken", "token", "auth", "auth_token",
     "private_token", "job_token", "client_secret", "oauth_token", "sig", "signature", "X-Amz-Signature",
     "X-Amz-Credential", "X-Goog-Signature"],
)  # fmt: skip
def test_a_query_carries_no_account_where_a_credential_is_injected(name: str) -> None:
    for query in (f"{name}=x=y", f"a=1&{name}", f"a;{name.upper()}=x"):
        assert "carries a credential" in why_not(asked("api.test", f"/v1/x?{query}"))
        assert why_not(asked("open.test", f"/v1/x?{query}")) == ""


@pytest.mark.parametrize("name", ["_method", "X-HTTP-Method", "X-HTTP-Method-Override", "$httpMethod"])
def test_a_query_names_no_method_where_methods_are_few(name: str) -> None:
    assert "another method" in why_not(asked("narrow.test", f"/?{name}=DELETE"))
    assert why_not(asked("open.test", f"/?{name}=DELETE")) == ""


@pytest.mark.parametrize("look", "\u2024\u2025\u2026\u2044\u2215\u29f8\u29f5\uff0e\uff0f\uff3c\ufe52\ufe68\u3002\uff61")
def test_no_look_of_a_dot_or_a_slash_is_in_a_path(look: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in look.encode())
    assert (
        malformed_target(f"/a/{escaped}", strict=False) == "the path holds a character that looks like a dot or a slash"
    )
    assert malformed_target(f"/a?{escaped}", strict=False) is None


@pytest.mark.parametrize("character", '\\"<>^`{}|')
def test_no_path_has_what_servers_read_differently(character: str) -> None:
    assert (
        malformed_target(f"/a{character}b", strict=False) == "the target holds a character that no canonical path has"
    )
    assert malformed_target(f"/a?b={character}", strict=False) is None


@pytest.mark.parametrize(
    ("target", "strict", "fine"),
    [
        ("/" + "a" * 16383, True, True), ("/" + "a" * 16384, True, False),
        ("/a!~", True, True), ("/a\x20", True, False), ("/a\x7f", True, False),
        ("/a#b", True, False), ("/a?b#c", True, False),
        ("/%01", False, False), ("/%1f", False, False), ("/%20", False, True), ("/%7f", False, False),
        ("/%7e", False, True), ("/%5c", False, False), ("/%25", False, True), ("/%25", True, False),
        ("/%7e", True, False), ("/%20", True, True), ("/%80", False, False), ("/%41", True, False),
        ("/?%01", True, True), ("/?%5c%7f%25%41", True, True),
        ("/?%00", False, False), ("/?%0a", False, False), ("/?%0d", False, False), ("/?%0b", False, True),
        ("/?%", False, False), ("/?%1", False, False), ("/?%1g", False, False), ("/?%g1", False, False),
        ("/a/", True, True), ("/a//", True, False), ("/a//b", True, False), ("/.", True, False), ("/a/..", True, False),
        ("/...", True, True), ("/.a", True, True), ("/a%2fb", True, True), ("/a%2f%2fb", True, False),
        ("/a%2F..", True, False), ("/..;a;b", True, False), ("/a;..", True, True),
        ("a", True, False), ("", True, False), ("?/", True, False),
    ],
)  # fmt: skip
def test_a_target_is_canonical_or_refused(target: str, strict: bool, fine: bool) -> None:
    assert (malformed_target(target, strict=strict) is None) == fine


@pytest.mark.parametrize(
    ("path", "prefix", "fine"),
    [("/v1", "/v1", True), ("/v1/", "/v1", True), ("/v1/a", "/v1", True), ("/v1a", "/v1", False), ("/v", "/v1", False),
     ("/f/", "/f/", True), ("/f/a", "/f/", True), ("/f", "/f/", False), ("/a/f/", "/f/", False), ("/", "/", True)],
)  # fmt: skip
def test_below_a_prefix_is_below_its_last_name(path: str, prefix: str, fine: bool) -> None:
    assert below(path, prefix) == fine


@pytest.mark.parametrize(
    "seen",
    [
        asked("open.test", "/team/site/git-receive-pack"),
        asked("open.test", "/team/site/git-upload-pack"),
        asked("open.test", "/team/site/Git-Upload-Archive"),
        asked("open.test", "/team/site/info/LFS/locks"),
        asked("open.test", "/team/site/info/refs?service=x"),
        asked("open.test", "/x", (b"content-TYPE", b" Application/X-git-upload-pack-request")),
        asked("open.test", "/x", (b"Accept", b"application/x-git-upload-pack-result")),
        asked("open.test", "/x", (b"Accept", b"text/plain, application/vnd.git-lfs+json")),
    ],
)
def test_git_is_known_by_its_paths_and_by_what_it_takes(seen: Seen) -> None:
    assert "git gate" in why_not(seen)


@pytest.mark.parametrize(
    "seen",
    [
        asked("open.test", "/docs/info/refs"),
        asked("open.test", "/docs?service=git-upload-pack"),
        asked("open.test", "/git-upload-pack/about"),
        asked("open.test", "/x", (b"X-Wants", b"application/x-git-upload-pack-result")),
    ],
)
def test_what_only_tells_of_git_is_let_out(seen: Seen) -> None:
    assert why_not(seen) == ""


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ((b"Upgrade", b" WebSocket "), ""), ((b"Upgrade", b"websocket, h2c"), "an upgrade"),
        ((b"Expect", b" 100-Continue"), ""), ((b"Expect", b"200-ok"), "an expectation"),
        ((b"Transfer-Encoding", b" Chunked "), ""), ((b"Transfer-Encoding", b"gzip"), "a transfer coding"),
        ((b"Content-Length", b" 5 "), ""), ((b"Content-Length", b"5,5"), "a malformed length"),
        ((b"Content-Length", b""), "a malformed length"), ((b"Content-Length", b"-1"), "a malformed length"),
        ((b"X", b"a\tb"), ""), ((b"X", b"a b"), ""), ((b"X", b"a\x1fb"), "control character"),
        ((b"X", b"a\x00"), "control character"), ((b"X", b"a\x7f"), "control character"), ((b"X", b"\x80\xff"), ""),
        ((b"", b"x"), "name is malformed"), ((b"x:", b"x"), "name is malformed"), ((b"x\n", b"x"), "name is malformed"),
        ((b"!#$%&'*+.^_`|~09azAZ-", b"x"), ""), ((b":path", b"/other"), "name is malformed"),
    ],
)  # fmt: skip
def test_a_header_is_one_that_every_server_reads_alike(header: tuple[bytes, bytes], reason: str) -> None:
    said = why_not(asked("open.test", "/", header))
    assert reason in said
    assert bool(reason) == bool(said)


def test_a_pseudo_header_is_one_of_the_second_version_only() -> None:
    seen = asked("open.test", "/", (b":path", b"/"))
    assert "malformed" in why_not(seen)
    assert why_not(replace(seen, http_version="HTTP/2.0")) == ""
    assert "malformed" in why_not(replace(asked("open.test", "/", (b"a b", b"/")), http_version="HTTP/2.0"))


def test_a_request_has_no_more_headers_than_the_bound() -> None:
    assert why_not(asked("open.test", "/", *[(b"X", b"y")] * 199)) == ""
    assert why_not(asked("open.test", "/", *[(b"X", b"y")] * 200)) == "over 200 headers"


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (replace(asked(), tls=False), "no TLS"),
        (replace(asked(), scheme="http"), "scheme is not https"),
        (replace(asked(), tunnel=("open.test", 80)), "tunnels lead to port 443 only"),
        (replace(asked(), tunnel=("other.test", 443)), "no route for this host"),
        (replace(asked(), headers=()), "names no host"),
        (replace(asked(), headers=(), authority="open.test"), ""),
        (replace(asked(), headers=(), authority="open.test:443"), ""),
        (replace(asked(), headers=(), authority="open.test:80"), "another host"),
        (replace(asked(), headers=((b"Host", b"\t open.test \t"),)), ""),
        (replace(asked(), headers=((b"Host", b"open.test\n"),)), "another host"),
        (replace(asked("narrow.test"), method="POST"), "outside this route's methods"),
        (replace(asked(), method="POST"), ""),
        (replace(asked(), http_version="HTTP/3"), "version"),
    ],
)
def test_one_host_is_asked_over_tls_by_one_name(seen: Seen, reason: str) -> None:
    said = why_not(seen)
    assert reason in said
    assert bool(reason) == bool(said)


@pytest.mark.parametrize(
    "host", ["Open.test", "open.test.", "open..test", "-open.test", "open-.test", "open.test/", ""]
)
def test_a_name_that_is_none_is_refused_even_where_a_route_bears_it(host: str) -> None:
    assert decide_host(Policy({host: Route(host)}), host).reason == "the host is not a plain lower-case name"


@pytest.mark.parametrize(("length", "allowed"), [(253, True), (254, False)])
def test_a_name_is_as_long_as_dns_takes(length: int, allowed: bool) -> None:
    host = ("a" * 63 + ".") * 3 + "a" * (length - 192)
    assert decide_connect(Policy({host: Route(host)}), host, 443).allow == allowed
