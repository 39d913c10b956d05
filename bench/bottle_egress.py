"""`python -m bench.bottle_egress`: one kept-alive request through the egress gate, beside mitmdump with an empty addon.

The client, the upstream and the proxies are processes of their own. The contestants take turns, round by round; a
number is the median of all requests of all rounds, and the floor is the same request without any proxy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.parts.egress_gate import EgressGate, route
from tests.parts.upstream_tls import make_certificate
from tests.parts.waiting import eventually_now

ROOT = Path(__file__).parents[1]
LIMIT = 1.25
HOSTS = ("plain.test", "token.test")
TOKEN = "tok-BENCH-0123456789abcdef"
HELD = "held-BENCH-secret-77665544"
LARGE = "POST of 130 KB"

UPSTREAM = """
import asyncio, ssl, sys
class Answer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""
    def data_received(self, data):
        self.buffer += data
        while True:
            head, end, rest = self.buffer.partition(b"\\r\\n\\r\\n")
            if not end:
                return
            at = head.lower().find(b"content-length:")
            size = int(head[at + 15 :].split(b"\\r\\n")[0]) if at >= 0 else 0
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            body = b'{"ok": true, "text": "' + b"x" * 900 + b'"}'
            head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n"
            self.transport.write(head % len(body) + body)
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

HEADERS = (
    "accept: application/json", "user-agent: sdk/1.2.3 (linux; x64)", "accept-encoding: gzip, br", "x-app: cli",
    "anthropic-version: 2023-06-01", "x-request-id: 5f0c2d6e-7a31-4c58-9e1b-2f6d0a9c4b77", "authorization: Bearer none",
)  # fmt: skip
POSTED = json.dumps({"model": "m-1", "messages": [{"role": "user", "content": "what does this do? " * 40}]}).encode()
TURN = 'def handle(request):\n    return {"status": request.status, "line": %d}  # what does this do?\n'
LONG = json.dumps({"model": "m-1", "messages": [{"role": "user", "content": TURN % at} for at in range(1000)]}).encode()
"""A long conversation, all of which is searched: told beside, and held to no limit."""


def wire(method: str, host: str, body: bytes = b"") -> bytes:
    """A request as an API's client sends it."""
    lines = [f"{method} /v1/messages HTTP/1.1", f"host: {host}", *HEADERS]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def cpu_s(process: int) -> float:
    """CPU time of another process so far (clock_getcpuclockid(3) makes its clock's number this way on Linux)."""
    return time.clock_gettime((~process << 3) | 2)


def timed(stream: socket.socket, request: bytes, count: int) -> list[float]:
    """Seconds of each of `count` requests on one connection."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        stream.sendall(request)
        said = b""
        while True:
            said += stream.recv(65536)
            head, end, body = said.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            if end and found and len(body) >= int(found[1]):
                break
        took.append(time.perf_counter() - began)
        if not said.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the answer was {said[:200]!r}")
    return took


@contextmanager
def upstream(directory: Path) -> Iterator[tuple[int, Path]]:
    """The upstream in a process of its own; its port and authority."""
    ca, certificate, key = make_certificate(directory, HOSTS)
    process = subprocess.Popen(
        [sys.executable, "-c", UPSTREAM, str(certificate), str(key)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), ca
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@contextmanager
def mitmdump(directory: Path) -> Iterator[tuple[int, int]]:
    """A bare mitmdump: an empty addon, and nothing shown; its port and its process."""
    addon = directory / "empty.py"
    addon.write_text("addons = []\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            str(ROOT / ".venv-egress" / "bin" / "mitmdump"), "-q", "-s", str(addon), "--listen-host", "127.0.0.1",
            "-p", str(port), "--set", f"confdir={directory / 'mitm'}", "--ssl-insecure",
            "--set", "connection_strategy=lazy",
        ],
        env={**os.environ, "HOME": str(directory)},
    )  # fmt: skip

    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    try:
        eventually_now(listens, within_s=30, what="mitmdump listens")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(10)


def unverified(made: socket.socket, host: str) -> ssl.SSLSocket:
    """TLS as the floor and the peer get it: the same protocol, whoever answers."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context.wrap_socket(made, server_hostname=host)


def direct(port: int) -> ssl.SSLSocket:
    """A connection without a proxy."""
    return unverified(socket.create_connection(("127.0.0.1", port), 10), HOSTS[0])


def through_mitmdump(proxy: int, port: int) -> ssl.SSLSocket:
    """A connection through the peer."""
    made = socket.create_connection(("127.0.0.1", proxy), 10)
    made.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    said = b""
    while b"\r\n\r\n" not in said:
        said += made.recv(1)
    return unverified(made, HOSTS[0])


def _beside(name: str) -> str:
    kind, _, which = name.rpartition(" ")
    return f"{kind} gate, {which}"


def measure(rounds: int, count: int) -> dict[str, Any]:
    """Run the contest; milliseconds by contestant, and the ratios that are held to the limit."""
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        directory = Path(home)
        port, ca = stack.enter_context(upstream(directory))
        proxy, peer = stack.enter_context(mitmdump(directory))
        gate = stack.enter_context(
            EgressGate(
                directory,
                [route("plain.test"), route("token.test", prefixes=["/v1"], slot="EGRESS_TOKEN_0")],
                dict.fromkeys(HOSTS, ("127.0.0.1", port)),
                ca,
                tokens={"EGRESS_TOKEN_0": TOKEN},
                known=[("HELD", HELD)],
            )
        )
        dials: dict[str, Callable[[], ssl.SSLSocket]] = {
            "direct": lambda: direct(port),
            "mitmdump": lambda: through_mitmdump(proxy, port),
            "gate, plain": lambda: gate.tls("plain.test"),
            "gate, token": lambda: gate.tls("token.test"),
        }
        requests: dict[str, Callable[[str], bytes]] = {
            "GET": lambda host: wire("GET", host),
            "POST": lambda host: wire("POST", host, POSTED),
            LARGE: lambda host: wire("POST", host, LONG),
        }
        streams = {name: stack.enter_context(dial()) for name, dial in dials.items()}
        took: dict[str, list[float]] = {}
        burnt: dict[str, float] = {}
        # The long ones come last: what they cost would be held against the gate's next turn on a busy machine.
        turns = [(turn, kind) for turn in range(rounds + 1) for kind in requests if kind != LARGE]
        for turn, kind in turns + [(turn, LARGE) for turn in range(1 + rounds // 8)]:
            names = list(streams)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                host = "token.test" if name.endswith("token") else "plain.test"
                process = peer if name == "mitmdump" else gate.process.pid
                before = cpu_s(process)
                found = timed(streams[name], requests[kind](host), count)
                if turn:  # the first is a warm-up
                    took.setdefault(f"{kind} {name}", []).extend(found)
                    if name != "direct":
                        burnt[f"{kind} {name}"] = burnt.get(f"{kind} {name}", 0.0) + cpu_s(process) - before
        medians = {name: round(statistics.median(each) * 1e3, 3) for name, each in took.items()}
        ratios = {
            f"{kind} {which}": round(medians[f"{kind} gate, {which}"] / medians[f"{kind} mitmdump"], 3)
            for kind in requests
            for which in ("plain", "token")
        }
        spent = {name: round(total / len(took[name]) * 1e3, 3) for name, total in burnt.items()}
        cpu_ratios = {
            name: round(spent[_beside(name)] / spent[name.rpartition(" ")[0] + " mitmdump"], 3) for name in ratios
        }
        return {
            "what": "one kept-alive request: median milliseconds, and CPU time of the proxy, which noise moves less",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0]},
            "rounds": rounds,
            "requests_a_round": count,
            "ms": medians,
            "cpu_ms": spent,
            "vs_mitmdump": ratios,
            "cpu_vs_mitmdump": cpu_ratios,
            "limit": LIMIT,
            "verdict": {
                name: "ok" if ratio <= LIMIT else "MISS" for name, ratio in ratios.items() if not name.startswith(LARGE)
            },
            "gate_memory_mib": {"now": gate.memory("VmRSS") >> 20, "most": gate.memory() >> 20},
        }


def main() -> int:
    """Measure, print, and write bench/results/bottle/egress.json."""
    made = argparse.ArgumentParser(prog="python -m bench.bottle_egress", description=__doc__)
    made.add_argument("--rounds", type=int, default=80, help="many short ones: noise hits neighbours alike")
    made.add_argument("--requests", type=int, default=15, help="requests a round")
    made.add_argument("--no-write", action="store_true", help="only print")
    options = made.parse_args()
    found = measure(options.rounds, options.requests)
    print(json.dumps(found, indent=1))
    if not options.no_write:
        target = ROOT / "bench" / "results" / "bottle" / "egress.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
