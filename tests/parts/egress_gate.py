"""A real egress gate without a bottle around it: the daemon as the bundle starts it, and a client at its socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottle.authority import mint
from tests.conftest import require
from tests.parts.waiting import eventually_now

REPOSITORY = Path(__file__).parents[2]
READY_S = 30.0


def route(
    host: str, *, prefixes: Sequence[str] | None = None, slot: str | None = None, scheme: str = "Bearer", **more: Any
) -> dict[str, Any]:
    """One row of a rendered route table; the upstream on loopback is granted."""
    return {
        "host": host,
        "path_allowlist": None if prefixes is None else list(prefixes),
        "scheme": scheme if slot else None,
        "slot": slot,
        "private": ["127.0.0.0/8"],
        **more,
    }


class EgressGate:
    """The daemon, and what it said. `reach`: host -> (address, port), which it dials instead of asking DNS.

    `within`: a program that starts it.
    """

    def __init__(
        self,
        directory: Path,
        routes: list[dict[str, Any]],
        reach: dict[str, tuple[str, int]],
        upstream_ca: Path,
        *,
        tokens: dict[str, str] | None = None,
        known: Sequence[tuple[str, str]] = (),
        within: Sequence[str] = (),
    ) -> None:
        self._within = within
        self.directory = directory
        self.said: list[dict[str, Any]] = []
        self.other: list[str] = []
        authority = mint("gate")
        self.ca = directory / "gate-ca.pem"
        self.ca.write_text(authority.certificate)
        self.table = directory / "routes.json"
        self.table.write_text(json.dumps(routes))
        self._config = {
            "bottle": "gate",
            "socket": str(directory / "egress.sock"),
            "table": str(self.table),
            "trust": str(upstream_ca),
            "work_dir": str(directory / "work"),
            "routes": routes,
            "resolve": {host: list(place) for host, place in reach.items()},
            "ca": authority.key_and_certificate.reveal(),
            "tokens": tokens or {},
            "known": [list(each) for each in known],
        }
        self.socket = Path(str(self._config["socket"]))

    @staticmethod
    def python() -> Path:
        """The interpreter that has mitmproxy."""
        return Path(os.environ.get("BOTTLE_EGRESS_ENV", REPOSITORY / ".venv-egress")) / "bin" / "python"

    def __enter__(self) -> EgressGate:
        require(self.python(), "needs the egress gate's environment (scripts/setup.sh)")
        self.process = subprocess.Popen(
            [*self._within, str(self.python()), "-m", "bottle.sidecars.egress.serve"],
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/tmp"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self._config))
        self.process.stdin.close()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        eventually_now(lambda: self.events("ready") or self.gone(), within_s=READY_S, what="the gate is ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.said.append(json.loads(line))
            else:
                self.other.append(line)

    def gone(self) -> bool:
        """True once the daemon has ended."""
        return self.process.poll() is not None

    def events(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """What it said of one kind, with these fields."""
        return [
            each
            for each in list(self.said)
            if each.get("event") == kind and all(each.get(key) == value for key, value in fields.items())
        ]

    def reasons(self) -> list[str]:
        """The reasons of every denial."""
        return [str(each["reason"]) for each in self.events("egress", decision="deny")]

    def reload(self, routes: list[dict[str, Any]]) -> None:
        """Give it another table, and wait until it stands."""
        before = len(self.events("reload"))
        self.table.write_text(json.dumps(routes))
        self.process.send_signal(signal.SIGHUP)
        eventually_now(lambda: len(self.events("reload")) > before, within_s=10, what="the gate has reloaded")

    def memory(self, kind: str = "VmHWM") -> int:
        """Bytes of memory: VmHWM is the most there was, VmRSS what there is."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (each for each in text.splitlines() if each.startswith(kind + ":"))
        return int(line.split()[1]) << 10

    # -- the client's side ----------------------------------------------------------------------------------------

    def dial(self, timeout_s: float = 20) -> socket.socket:
        """A bare connection to the door."""
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(self.socket))  # before the timeout: a full backlog is waited for
        made.settimeout(timeout_s)
        return made

    def tunnel(self, host: str, port: int = 443) -> tuple[socket.socket, str]:
        """A tunnel, and the first line that answered."""
        made = self.dial()
        made.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        said = b""
        while b"\r\n\r\n" not in said:
            block = made.recv(1)  # not one byte of what comes after the head
            if not block:
                break
            said += block
        return made, said.decode("latin-1").split("\r\n")[0]

    def tls(self, host: str, alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLSocket:
        """TLS through a tunnel, by a client that trusts this gate's authority alone."""
        made, said = self.tunnel(host)
        if " 200 " not in said:
            made.close()
            raise ConnectionError(said)
        context = ssl.create_default_context(cafile=str(self.ca))
        context.set_alpn_protocols(list(alpn))
        try:
            return context.wrap_socket(made, server_hostname=host)
        except OSError:
            made.close()
            raise

    def client(self, host: str) -> http.client.HTTPConnection:
        """An ordinary HTTP/1.1 client on a tunnel of its own."""
        made = http.client.HTTPConnection(host, 443, timeout=30)
        made.sock = self.tls(host)
        made.auto_open = 0
        return made

    def ask(
        self,
        host: str,
        target: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body; status 0 when the connection was cut."""
        client = self.client(host)
        try:
            client.request(method, target, body, headers or {})
            answer = client.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, f"{type(error).__name__}: {error}".encode()
        finally:
            client.close()
