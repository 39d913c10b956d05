"""What a scripted agent can do inside a bottle; this file's text goes in whole: the standard library alone."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_proxy = urlsplit(os.environ.get("https_proxy", "http://127.0.0.1:8877"))
PROXY = (_proxy.hostname or "", _proxy.port or 0)
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def get(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> list[Any]:
    """Status and text of a request made as any program makes one; status 0 when no answer came."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=20) as answer:
            return [answer.status, answer.read().decode("utf-8", "replace")]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode("utf-8", "replace")]
    except OSError as error:
        return [0, str(error)]


def tunnel(host: str, port: int = 443) -> tuple[socket.socket, str]:
    """Ask the proxy for a tunnel; what it said."""
    raw = socket.create_connection(PROXY, 10)
    raw.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    said = b""
    while b"\r\n\r\n" not in said:
        block = raw.recv(4096)
        if not block:
            break
        said += block
    return raw, said.decode("latin-1")


def tls(raw: socket.socket, sni: str | None, alpn: list[str] | None = None) -> ssl.SSLSocket:
    """TLS over a tunnel, by an agent that doesn't care who answers."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    return context.wrap_socket(raw, server_hostname=sni)


def exchange(stream: socket.socket, data: bytes) -> str:
    """Send bytes, and return what comes back until it ends or a whole head is there."""
    stream.settimeout(10)
    said = b""
    try:
        stream.sendall(data)
        while b"\r\n\r\n" not in said or b"connection: close" in said.lower():
            block = stream.recv(4096)
            if not block:
                break
            said += block
    except OSError as error:
        said += b"!" + str(error).encode()
    return said.decode("latin-1")


def asked(tunnel_to: str, sni: str | None, request: bytes) -> str:
    """One raw request inside a tunnel."""
    raw, said = tunnel(tunnel_to)
    try:
        stream = tls(raw, sni)
    except OSError as error:
        return f"!{error} after {said[:40]}"
    return exchange(stream, request)


def head(line: str, *headers: str, host: str = "api.test") -> bytes:
    """A request's head."""
    return "\r\n".join([line, f"Host: {host}", *headers, "", ""]).encode("latin-1")


def connects(family: int, address: tuple[str, int], kind: int = STREAM) -> str:
    """Whether a socket gets anywhere."""
    try:
        with socket.socket(family, kind) as made:
            made.settimeout(3)
            made.connect(address)
            if kind == DATAGRAM:
                made.send(b"x")
                made.recv(1)  # that it was taken says nothing: somebody must answer
        return "connected"
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"


def answered(address: tuple[str, int]) -> str:
    """Whether anyone answers a question for an address, and with one."""
    with socket.socket(socket.AF_INET, DATAGRAM) as made:
        made.settimeout(0.5)
        try:
            made.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01", address)
            data = made.recv(512)
            return "no such name" if data[3] & 15 in (3, 5) and data[6:8] == b"\0\0" else repr(data)
        except OSError as error:
            return type(error).__name__


def attempt(work: Callable[[], Any]) -> str:
    """What an attempt ends in: the error's kind, or what it gave."""
    try:
        return repr(work())
    except OSError as error:
        return type(error).__name__


def pinged(address: str) -> bytes:
    """What answers an ICMP echo, where such a socket can be had without a privilege (icmp(7), ping_group_range)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as made:
        made.settimeout(3)
        made.sendto(b"\x08\0\0\0\0\0\0\0", (address, 0))
        return made.recv(64)


def at_once(works: list[Callable[[], str]]) -> list[str]:
    """Try them all side by side: each may have to wait for nobody to answer."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [each.result() for each in [pool.submit(work) for work in works]]


def readable(name: str) -> list[str]:
    """A file of every process in sight."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / name).read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
    return found


def events(url: str, after_first: Callable[[], Any]) -> list[str]:
    """Read a stream of events; `after_first` is done once the first is there, and before the next can be."""
    found = []
    with urllib.request.urlopen(url, timeout=20) as answer:
        for line in answer:
            if line.startswith(b"data: "):
                found.append(line[6:].decode().strip())
                if len(found) == 1:
                    after_first()
    return found


def websocket(host: str, path: str, messages: list[bytes]) -> list[str]:
    """Send each message and return what came back for it, or that nothing did."""
    raw, _ = tunnel(host)
    stream = tls(raw, host)
    stream.settimeout(10)
    key = "Sec-WebSocket-Key: eHh4eHh4eA=="
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
    said = exchange(stream, head(f"GET {path} HTTP/1.1", *upgrade, host=host))
    found = [said.split("\r\n")[0]]
    for message in messages:
        mask = b"\x01\x02\x03\x04"
        body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(message))
        size = bytes([0x80 | len(body)]) if len(body) < 126 else b"\xfe" + len(body).to_bytes(2, "big")
        try:
            stream.sendall(b"\x82" + size + mask + body)
            answer = stream.recv(4096)
        except OSError as error:
            answer = b"!" + str(error).encode()
        found.append(answer[2:].decode("utf-8", "replace") if answer else "closed")
        if not answer or answer.startswith(b"!"):
            break
    return found


def past_the_gate(port: int) -> dict[str, str]:
    """Every way of asking the gate for more than the manifest grants."""
    return {
        "evil host": tunnel("evil.test")[1],
        "address": tunnel("127.0.0.7", port)[1],
        "other port": tunnel("api.test", 22)[1],
        "git port": tunnel("api.test", 9418)[1],
        "upper case": tunnel("API.test")[1],
        "trailing dot": tunnel("api.test.")[1],
        "userinfo": tunnel("api.test@evil.test")[1],
        "cleartext": exchange(
            socket.create_connection(PROXY, 10), head("GET http://api.test/v1/x HTTP/1.1", "Connection: close")
        ),
        "cleartext steering": exchange(
            socket.create_connection(PROXY, 10), head("GET http://evil.test/v1/x HTTP/1.1", "Connection: close")
        ),
        "onboarding page": exchange(
            socket.create_connection(PROXY, 10),
            head("GET http://mitm.it/ HTTP/1.1", "Connection: close", host="mitm.it"),
        ),
        "proxy itself": exchange(socket.create_connection(PROXY, 10), head("GET / HTTP/1.1", "Connection: close")),
        "foreign SNI": asked("api.test", "open.test", head("GET /v1/x HTTP/1.1")),
        "no SNI": asked("api.test", None, head("GET /v1/x HTTP/1.1")),
        "steered host": asked("open.test", "open.test", head("GET /v1/x HTTP/1.1")),
        "two hosts": asked("api.test", "api.test", head("GET /v1/x HTTP/1.1", "Host: open.test")),
        "absolute form": asked("api.test", "api.test", head("GET https://open.test/v1/x HTTP/1.1")),
        "tunnel in a tunnel": asked("api.test", "api.test", head("CONNECT open.test:443 HTTP/1.1")),
        "trace": asked("api.test", "api.test", head("TRACE /v1/x HTTP/1.1")),
        "dot segments": asked("api.test", "api.test", head("GET /v1/../x HTTP/1.1")),
        "encoded dots": asked("api.test", "api.test", head("GET /v1/%2e%2e/x HTTP/1.1")),
        "encoded slash": asked("api.test", "api.test", head("GET /v1/..%2fx HTTP/1.1")),
        "backslash": asked("api.test", "api.test", head("GET /v1/..\\x HTTP/1.1")),
        "double slash": asked("api.test", "api.test", head("GET //v1/x HTTP/1.1")),
        "case": asked("api.test", "api.test", head("GET /V1/x HTTP/1.1")),
        "account in query": asked("api.test", "api.test", head("GET /v1/x?api_key=mine HTTP/1.1")),
        "method override": asked("api.test", "api.test", head("GET /v1/x HTTP/1.1", "X-HTTP-Method-Override: DELETE")),
        "routing header": asked("api.test", "api.test", head("GET /v1/x HTTP/1.1", "X-Forwarded-Host: evil.test")),
    }


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2(*fields: tuple[str, str], body: bytes = b"") -> str:
    """One HTTP/2 request with these fields as they stand; "200" when that is the answer, else what came instead."""
    raw, _ = tunnel("api.test")
    stream = tls(raw, "api.test", ["h2"])
    stream.settimeout(5)
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode("latin-1")
        for name, value in fields
    )  # literal fields without indexing (RFC 7541, 6.2.2)
    said = b""
    try:
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        stream.sendall(frame(1, 4 if body else 5, 1, block) + (frame(0, 1, 1, body) if body else b""))
        while True:
            data = stream.recv(65536)
            if not data:
                break
            said += data
            found = _status(said)
            if found:
                return found
    except OSError as error:
        return type(error).__name__
    return "closed"


def _status(said: bytes) -> str:
    """What the frames so far answer the request with: its status, that it was reset, or nothing yet."""
    while len(said) >= 9:
        size, kind = int.from_bytes(said[:3], "big"), said[3]
        payload, said = said[9 : 9 + size], said[9 + size :]
        if kind == 1:
            return "200" if payload[:1] == b"\x88" else "another status"
        if kind in (3, 7):
            return "reset" if kind == 3 else "goodbye"
    return ""


def in_http2() -> dict[str, str]:
    """What HTTP/2 lets one say that HTTP/1.1 doesn't."""

    def ask(*more: tuple[str, str], method: str = "GET", authority: str = "api.test", path: str = "/v1/x") -> str:
        plain = ((":method", method), (":scheme", "https"), (":authority", authority), (":path", path))
        return h2(*plain, *more)

    return {
        "foreign authority": ask(authority="open.test"),
        "userinfo": ask(authority="x@api.test"),
        "second host": ask(("host", "open.test")),
        "tunnel": h2((":method", "CONNECT"), (":authority", "open.test:443")),
        "extended tunnel": ask((":protocol", "websocket"), method="CONNECT"),
        "dots": ask(path="/v1/../x"),
        "no path": h2((":method", "GET"), (":scheme", "https"), (":authority", "api.test")),
        "line break": ask(("x-a", "b\r\nhost: open.test")),
        "upper case": ask(("X-A", "b")),
        "connection header": ask(("transfer-encoding", "chunked")),
        "wrong length": h2(
            (":method", "POST"), (":scheme", "https"), (":authority", "api.test"), (":path", "/v1/x"),
            ("content-length", "1"), body=b"GET /v2 HTTP/1.1\r\n\r\n",
        ),
    }  # fmt: skip


def not_http(port: int) -> dict[str, str]:
    """What isn't HTTP, or is two requests in one."""
    raw, _ = tunnel("api.test")
    found = {"raw TCP": exchange(raw, b"SSH-2.0-x\r\n\r\n")}
    raw, _ = tunnel("api.test")
    found["HTTP/0.9"] = exchange(tls(raw, "api.test"), b"GET /v1/x\r\n\r\n")
    smuggled = b"0\r\n\r\nGET /v2 HTTP/1.1\r\nHost: api.test\r\n\r\n"
    both = head("POST /v1/x HTTP/1.1", "Content-Length: 4", "Transfer-Encoding: chunked") + smuggled
    found["two lengths"] = asked("api.test", "api.test", both)
    folded = head("GET /v1/x HTTP/1.1", "X-A: b\r\n folded")
    found["folded header"] = asked("api.test", "api.test", folded)
    found["NUL in a name"] = asked("api.test", "api.test", head("GET /v1/x HTTP/1.1", "X\0A: b"))
    found["space in a name"] = asked("api.test", "api.test", head("GET /v1/x HTTP/1.1", "X A: b"))
    return found


def around_the_gate(port: int) -> dict[str, list[str]]:
    """Every way out that isn't the gate."""
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    interfaces = [name for _, name in socket.if_nameindex()]
    # At most the bundle's own network of eight addresses, whose gateway is nobody (docker's older engines name one).
    # gVisor writes the bits of a mask from the other end.
    small = {row[1][2:] for row in rows if row[7] in ("F8FFFFFF", "1FFFFFFF")}
    routes = [" ".join(row) for row in rows if row[1][2:] not in small and row[2][2:] not in small]
    if routes or interfaces not in (["lo"], ["lo", "eth0"]):  # not one packet is sent where it could leave
        return {"four": ["connected"], "six": [], "datagrams": [], "resolvers": [], "lookup": [], "raw": routes}
    four = (("127.0.0.7", port), ("192.0.2.1", 443), ("127.0.0.1", 22), ("169.254.169.254", 80))
    six = (("::ffff:127.0.0.7", port), ("2001:db8::1", 443), ("fe80::1", 80))
    datagrams = (("192.0.2.1", 53), ("224.0.0.251", 5353))
    return {
        "four": at_once([partial(connects, socket.AF_INET, each) for each in four]),
        "six": at_once([partial(connects, socket.AF_INET6, each) for each in six]),
        "datagrams": at_once([partial(connects, socket.AF_INET, each, DATAGRAM) for each in datagrams]),
        "resolvers": at_once([partial(answered, (each, 53)) for each in ("127.0.0.11", "127.0.0.53")]),
        "lookup": [attempt(lambda: socket.gethostbyname("api.test"))],
        "raw": [
            attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
            attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)),
            attempt(lambda: pinged("192.0.2.1")),
        ],
    }


def out_of_the_sandbox() -> dict[str, Any]:
    """What the sandbox itself must not let be changed or seen."""
    places = (
        "/root",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/sys",
        "/etc/shadow",
        "/home/agent/.ssh",
        "/dev/kmsg",
    )
    written = ("/proc/sys/kernel/core_pattern", "/x", "/usr/x", "/etc/x", "/run/bottle/doors/x", "/run/bottle/ca.pem")
    return {
        "written": [attempt(partial(os.open, path, os.O_WRONLY | os.O_CREAT)) for path in written],
        "user namespace": subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False).returncode,
        "seen": [each for each in places if os.path.exists(each)],
        "processes": len([each for each in os.listdir("/proc") if each.isdigit()]),
        "capabilities": [
            line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cap")
        ],
        "no new privileges": "NoNewPrivs:\t1" in Path("/proc/self/status").read_text(),
        "terminal": attempt(lambda: os.open("/dev/tty", os.O_RDWR)),
    }
