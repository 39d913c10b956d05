"""Whether a connection or a request may leave: pure functions over what was seen. The default of every one is no.

One host has one spelling here: the names of the CONNECT, of the TLS client hello and of the request must be the same
text, and a path is taken only in its canonical form, so that what is compared is what the upstream will act on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from bottle.sidecars.egress.policy import METHODS, PORT, Policy, Route

MAX_TARGET = 16 << 10
MAX_HEADERS = 200

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\Z")
_ESCAPE = re.compile(r"%(..)?", re.DOTALL)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"transfer-encoding"}
)
_FRAMES = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
"""Headers that say where a request goes and where it ends: none of them ends with a hop."""

_IDENTITY = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"x-authorization",
        b"x-forwarded-authorization",
        b"x-original-authorization",
    }
)
"""Stripped everywhere: the agent proves nothing to anyone."""

_ACCOUNT = frozenset(
    {
        b"cookie",
        b"cookie2",
        b"x-api-key",
        b"api-key",
        b"apikey",
        b"x-goog-api-key",
        b"x-auth-token",
        b"x-access-token",
        b"private-token",
        b"job-token",
        b"x-amz-security-token",
        b"openai-organization",
        b"openai-project",
    }
)
"""Stripped where a credential is injected: another account's would turn an allowed host into a way out."""

_PARTS = frozenset({b"range", b"if-range"})
"""Not sent where a credential is injected: an echo that comes back in parts couldn't be recognised."""

_ACCOUNT_QUERY = frozenset(
    {
        "key", "api_key", "apikey", "api-key", "access_token", "accesstoken", "token", "auth", "auth_token",
        "private_token", "job_token", "client_secret", "oauth_token", "sig", "signature", "x-amz-signature",
        "x-amz-credential", "x-goog-signature",
    }
)  # fmt: skip

_METHOD_QUERY = frozenset({"_method", "x-http-method", "x-http-method-override", "$httpmethod"})
"""Parameters that some frameworks take the method from; refused where the route says which methods there are."""

_ROUTING = frozenset(
    {
        b"forwarded",
        b"x-forwarded-host",
        b"x-forwarded-server",
        b"x-host",
        b"x-original-host",
        b"x-original-url",
        b"x-original-uri",
        b"x-forwarded-uri",
        b"x-rewrite-url",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
    }
)
"""Headers by which an upstream might take another host, path or method than the ones that were judged: refused."""


@dataclass(frozen=True)
class Verdict:
    """An answer. `reason`: a sentence part that names no secret; `route` is set when it is yes."""

    allow: bool
    reason: str
    route: Route | None = None

    @classmethod
    def no(cls, reason: str) -> Verdict:
        """Refuse."""
        return cls(False, reason)


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. `tunnel`: host and port of its CONNECT, as written; None = it came without one.

    `authority`: `:authority` or the absolute form's, "" when there is none. `target`: the path and query as written.
    `malformed`: its reader takes its head for none, and has no host and scheme of it.
    """

    tunnel: tuple[str, int] | None
    tls: bool
    sni: str | None
    scheme: str
    host: str
    port: int
    authority: str
    method: str
    target: str
    headers: Sequence[tuple[bytes, bytes]]
    http_version: str = "HTTP/1.1"
    malformed: bool = False


def decide_connect(policy: Policy, host: str, port: int) -> Verdict:
    """Whether a tunnel may be opened. Decided by the name alone, before anyone looks it up."""
    if port != PORT:
        return Verdict.no(f"tunnels lead to port {PORT} only")
    return decide_host(policy, host)


def decide_host(policy: Policy, host: str) -> Verdict:
    """Whether this name has a route. It is compared as written: no folding, no trailing dot, no address."""
    if not _NAME.match(host) or len(host) > 253:
        return Verdict.no("the host is not a plain lower-case name")
    route = policy.route(host)
    if route is None:
        return Verdict.no("no route for this host")
    return Verdict(True, "route", route)


def decide_request(policy: Policy, seen: Seen) -> Verdict:
    """Whether a request may be sent on."""
    if seen.tunnel is None:
        return Verdict.no("cleartext is not forwarded: use https")
    host, port = seen.tunnel
    opened = decide_connect(policy, host, port)
    if not opened.allow or opened.route is None:
        return opened
    if not seen.tls:
        return Verdict.no("the tunnel carries no TLS")
    if seen.malformed:
        return _refuse_method(seen, opened.route) or _refuse_headers(seen) or Verdict.no("the head is malformed")
    if seen.scheme != "https":
        return Verdict.no("the request's scheme is not https")
    if seen.sni is None:
        return Verdict.no("the TLS client hello names no host")
    if seen.sni != host:
        return Verdict.no("the TLS client hello names another host than the tunnel")
    if seen.host != host or seen.port != port:
        return Verdict.no("the request is for another host than the tunnel")
    named = _hosts_named(seen)
    if not named:
        return Verdict.no("the request names no host")
    if any(each not in (host, f"{host}:{port}") for each in named):
        return Verdict.no("the request names another host than the tunnel")
    return (
        _refuse_method(seen, opened.route)
        or _refuse_headers(seen)
        or _refuse_target(seen, opened.route)
        or _refuse_git(seen)
        or Verdict(True, "route", opened.route)
    )


def _hosts_named(seen: Seen) -> list[str]:
    found = [value.decode("latin-1").strip(" \t") for name, value in seen.headers if name.lower() == b"host"]
    if seen.authority:
        found.append(seen.authority)
    return found


def _refuse_method(seen: Seen, route: Route) -> Verdict | None:
    if seen.method not in METHODS:
        return Verdict.no("this method is not forwarded")
    if route.methods is not None and seen.method not in route.methods:
        return Verdict.no("this method is outside this route's methods")
    if seen.http_version not in ("HTTP/1.1", "HTTP/2.0"):
        return Verdict.no("this HTTP version is not forwarded")
    return None


def _refuse_headers(seen: Seen) -> Verdict | None:
    if len(seen.headers) > MAX_HEADERS:
        return Verdict.no(f"over {MAX_HEADERS} headers")
    hosts = lengths = 0
    named = _named_by_connection(seen.headers)
    if named & _FRAMES:
        return Verdict.no("the Connection header names a header that the request needs")
    for name, value in seen.headers:
        lower = name.lower()
        if not _TOKEN.match(name) and not (name.startswith(b":") and seen.http_version == "HTTP/2.0"):
            return Verdict.no("a header's name is malformed")
        if any(byte < 0x20 and byte != 0x09 for byte in value) or b"\x7f" in value:
            return Verdict.no("a header's value holds a control character")
        if lower.replace(b"_", b"-") in _ROUTING:  # CGI and what descends from it read both as one name
            return Verdict.no(f"the header {lower.decode()} is not forwarded")
        if b"_" in lower and lower.replace(b"_", b"-") in _FRAMES:
            return Verdict.no("a header that frames the request is misspelled")
        hosts += lower == b"host"
        lengths += lower in (b"content-length", b"transfer-encoding")
        if lower == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return Verdict.no("a transfer coding other than chunked")
        if lower == b"upgrade" and value.strip().lower() != b"websocket":
            return Verdict.no("an upgrade to something other than WebSocket")
        if lower == b"expect" and value.strip().lower() != b"100-continue":
            return Verdict.no("an expectation other than 100-continue")
        if lower == b"content-length" and not value.strip().isdigit():
            return Verdict.no("a malformed length")
    if hosts > 1 or lengths > 1:
        return Verdict.no("a header that frames the request stands twice")
    return None


def _refuse_target(seen: Seen, route: Route) -> Verdict | None:
    reason = malformed_target(seen.target, strict=route.prefixes is not None)
    if reason is not None:
        return Verdict.no(reason)
    path, _, query = seen.target.partition("?")
    if route.prefixes is not None and not any(under(path, prefix) for prefix in route.prefixes):
        return Verdict.no("the path is outside this route's path_allowlist")
    names = _query_names(query) if query else []
    if route.slot is not None and any(name.lower() in _ACCOUNT_QUERY for name in names):
        return Verdict.no("the query carries a credential where one is injected")
    if route.methods is not None and any(name.lower() in _METHOD_QUERY for name in names):
        return Verdict.no("the query names another method")
    if route.query is not None and any(name not in route.query for name in names):
        return Verdict.no("the query has a parameter outside this route's query list")
    return None


def _query_names(query: str) -> list[str]:
    """Return the parameters' names, as any server might read them: split at `&` and at `;`."""
    parts = query.replace(";", "&").split("&")
    return [unquote_to_bytes(part.partition("=")[0].replace("+", " ")).decode("latin-1") for part in parts]


def _refuse_git(seen: Seen) -> Verdict | None:
    """Git over HTTPS would be a way around the git gate, which reads what is pushed: it has that one way (GI57)."""
    path, _, query = seen.target.partition("?")
    plain = unquote_to_bytes(path).decode("latin-1").lower()
    kinds = [value.strip().lower() for name, value in seen.headers if name.lower() in (b"content-type", b"accept")]
    if (
        plain.endswith(_GIT_ENDS)
        or "/info/lfs/" in plain
        or (plain.endswith("/info/refs") and "service" in _query_names(query))
        or any(git in kind for kind in kinds for git in _GIT_KINDS)
    ):
        return Verdict.no("git goes through the git gate: declare the repository in git-gate.repos")
    return None


_GIT_ENDS = ("/git-receive-pack", "/git-upload-pack", "/git-upload-archive")
_GIT_KINDS = (b"application/x-git-", b"application/vnd.git-lfs")


def malformed_target(target: str, *, strict: bool) -> str | None:
    """Return why a request target is not in canonical form, None when it is.

    Refused rather than repaired: every server repairs in its own way. `strict`: the path decides (the route has a
    path_allowlist), so escapes that servers read differently are refused too; elsewhere clients use some of them.
    """
    if len(target) > MAX_TARGET:
        return "the target is too long"
    if not target.startswith("/"):
        return "the target is no absolute path"
    if any(not 0x21 <= ord(character) <= 0x7E for character in target):
        return "the target holds a character that isn't plain ASCII"
    path, _, _query = target.partition("?")
    if "#" in target or any(character in path for character in '\\"<>^`{}|'):
        return "the target holds a character that no canonical path has"
    for found in _ESCAPE.finditer(target):
        digits = found[1]
        if digits is None or not re.fullmatch(r"[0-9A-Fa-f]{2}", digits):
            return "the target holds a malformed escape"
        byte = int(digits, 16)
        if byte in (0, 0x0A, 0x0D):
            return "the target holds an escaped control character"
        if found.start() >= len(path):
            continue
        if byte < 0x20 or byte == 0x7F or byte == 0x5C or (strict and (byte == 0x25 or byte in _UNRESERVED)):
            return "the path holds an escape that canonical paths lack"
    # `%2F` is how a registry's clients write a scoped package's name: it counts as the slash it may become.
    segments = re.sub("%2[Ff]", "/", path).split("/")[1:]
    for at, segment in enumerate(segments):
        plain = unquote_to_bytes(segment).split(b";", 1)[0]  # `%3B` too: a server that decodes first sees `..;`
        if plain in (b".", b"..") or (segment == "" and at < len(segments) - 1):
            return "the path has an empty, . or .. segment"
        try:
            decoded = unquote_to_bytes(segment).decode("utf-8")
        except UnicodeDecodeError:
            return "the path holds an escape that isn't UTF-8"
        if any(look in decoded for look in _LOOKALIKES):
            return "the path holds a character that looks like a dot or a slash"
    return None


_LOOKALIKES = "\u2024\u2025\u2026\u2044\u2215\u29f8\u29f5\uff0e\uff0f\uff3c\ufe52\ufe68\u3002\uff61"


def under(path: str, prefix: str) -> bool:
    """True when a canonical path is the prefix or below it; `/v1` doesn't admit `/v1beta`."""
    if prefix.endswith("/"):
        return path.startswith(prefix)
    return path == prefix or path.startswith(prefix + "/")


def stripped(headers: Sequence[tuple[bytes, bytes]], route: Route) -> list[tuple[bytes, bytes]]:
    """Return the headers as they go on, without what would prove who the agent is. The injected one isn't here."""
    gone = _IDENTITY | (_ACCOUNT if route.slot is not None else frozenset())
    named = _named_by_connection(headers)
    kept = []
    for name, value in headers:
        lower = name.lower()
        meant = lower.replace(b"_", b"-")
        if (
            meant in gone
            or (route.slot is not None and meant in _PARTS)
            or meant in (b"proxy-connection", b"alt-used", b"alt-svc")
        ):
            continue
        if lower in named and lower not in _HOP:
            continue
        if lower == b"connection":
            # What it named is gone; left there it would take away what a proxy behind this one adds.
            value = b", ".join(word for word in _words(value) if word.lower() in (b"close", *_HOP))
            if not value:
                continue
        kept.append((name, value))
    return kept


def _named_by_connection(headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Return the names, in lower case, of the headers that are said to end with this hop (RFC 9110, 7.6.1)."""
    return frozenset(word.lower() for name, value in headers if name.lower() == b"connection" for word in _words(value))


def _words(value: bytes) -> list[bytes]:
    return [word.strip() for word in value.split(b",")]
