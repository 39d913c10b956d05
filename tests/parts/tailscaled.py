"""A real tailscaled: one node of the test's own tailnet, in a namespace of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.parts.headscale import URL
from tests.parts.netns import Namespaces
from tests.parts.waiting import eventually_now

ENVIRONMENT = {
    "TS_NO_LOGS_NO_SUPPORT": "true",
    "TS_DEBUG_USE_DERP_HTTP": "true",  # the test's relay has no certificate
    "TS_DISABLE_PORTMAPPER": "true",
    "TS_DISABLE_UPNP": "true",
}

PACKET_S = 2.0
"""Seconds for a packet to another node and back; one that is lost isn't sent again."""


class Tailscaled:
    """One node. `kernel`: with a TUN device; else in userspace networking."""

    def __init__(self, programs: Path, directory: Path, name: str, namespace: str, *, kernel: bool) -> None:
        self.name = name
        self.namespace = namespace
        self.kernel = kernel
        self.directory = directory / name
        self.directory.mkdir()
        self.socket = self.directory / "tailscaled.sock"
        self.log = self.directory / "log"
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it isn't in the tailnet before `up`."""
        tun = "tailscale0" if self.kernel else "userspace-networking"
        argv = [str(self._programs / "tailscaled"), "--no-logs-no-support", f"--tun={tun}", f"--socket={self.socket}"]
        argv += [f"--statedir={self.directory}", f"--state={self.directory}/state"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), **ENVIRONMENT}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                Namespaces.inside(self.namespace, argv), stdout=log, stderr=log, env=environment, cwd=self.directory
            )
        eventually_now(self.socket.exists, within_s=30, what=f"tailscaled of {self.name} listens")

    @property
    def program(self) -> Path:
        """The tailscale program."""
        return self._programs / "tailscale"

    def up(self, key: str, *more: str) -> None:
        """Join the tailnet."""
        self.run("up", f"--login-server={URL}", f"--auth-key={key}", f"--hostname={self.name}", "--accept-dns=false",
                 "--netfilter-mode=off", "--timeout=40s", *more)  # fmt: skip

    def run(self, *words: str) -> bytes:
        """Run the tailscale program beside it."""
        argv = [str(self.program), f"--socket={self.socket}", *words]
        done = subprocess.run(argv, check=False, capture_output=True, timeout=60)
        if done.returncode != 0:
            said = done.stderr.decode() + self.log.read_text()[-1500:]
            raise AssertionError(f"tailscale {words[0]} on {self.name}: {said}")
        return done.stdout

    def reaches(self, name: str) -> bool:
        """Whether another node answers it directly, now."""
        argv = [str(self.program), f"--socket={self.socket}", "ping", "--c=1", "--timeout=1s", name]
        return subprocess.run(argv, check=False, capture_output=True, timeout=20).returncode == 0

    def exchanges_packets_with(self, address: str) -> bool:
        """Whether a packet inside WireGuard comes back from that node, now.

        `reaches` asks beside WireGuard ("disco"), which answers also while the keys in use are lost.
        """
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(PACKET_S)
            try:
                asked.connect(str(self.socket))
                question = f"POST /localapi/v0/ping?type=TSMP&ip={address} HTTP/1.1"
                asked.sendall(
                    f"{question}\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n"
                    "Content-Length: 0\r\n\r\n".encode()
                )
                answer = b"".join(iter(lambda: asked.recv(4096), b""))
            except OSError:
                return False
        _, _, body = answer.partition(b"\r\n\r\n")
        return answer.startswith(b"HTTP/1.1 200 ") and not json.loads(body).get("Err")

    def status(self) -> Any:
        """What it says of the tailnet."""
        return json.loads(self.run("status", "--json"))

    @property
    def addresses(self) -> list[str]:
        """Its tailnet addresses, IPv4 first."""
        return [str(each) for each in self.status()["TailscaleIPs"]]

    def stop(self) -> None:
        """End it in order, as an upgrade does: its interface goes with it. `start` brings it back."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)
        self.socket.unlink(missing_ok=True)

    def end(self) -> None:
        """End it, as a machine that loses power does."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
