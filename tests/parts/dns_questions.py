"""DNS questions as a client writes them, and a running answerer to put them to."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
A, TXT, AAAA, AXFR = 1, 16, 28, 252
NXDOMAIN, REFUSED, FORMERR, NOTIMP = 3, 5, 1, 4


def question(name: str, kind: int = A, *, number: int = 7, flags: int = 0x0100, group: int = 1) -> bytes:
    """One question in a message."""
    labels = b"".join(bytes([len(each)]) + each.encode("latin-1") for each in name.split("."))
    return struct.pack("!HHHHHH", number, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, group)


def code(answer: bytes) -> int:
    """An answer's code."""
    return answer[3] & 15


def records(answer: bytes) -> int:
    """How many records an answer has."""
    return int.from_bytes(answer[6:8], "big")


class Answering:
    """A daemon in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.port = port

    def ask(self, message: bytes, within_s: float = 5.0) -> bytes:
        """Ask by datagram."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.settimeout(within_s)
            line.sendto(message, ("127.0.0.1", self.port))
            return line.recv(4096)

    def ask_by_stream(self, message: bytes) -> bytes:
        """Ask over TCP."""
        with socket.create_connection(("127.0.0.1", self.port), 5.0) as line:
            line.sendall(len(message).to_bytes(2, "big") + message)
            with line.makefile("rb") as said:
                return said.read(int.from_bytes(said.read(2), "big"))

    def sockets(self) -> list[str]:
        """What sockets the daemon holds, looked at from outside."""
        names = [link.readlink().name for link in Path(f"/proc/{self.pid}/fd").iterdir()]
        return sorted(name for name in names if name.startswith("socket:"))

    def told(self) -> list[dict[str, Any]]:
        """End it, and return what it said since it was ready."""
        self._process.terminate()
        out, _ = self._process.communicate(timeout=10)
        return [json.loads(line) for line in out.splitlines()]


@contextmanager
def answering(names: dict[str, list[str]], known: list[tuple[str, str]] | None = None) -> Iterator[Answering]:
    """A running answerer on loopback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bottle.sidecars.dns.serve"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        config = {"bottle": "agent-00000000", "address": "127.0.0.1", "port": 0, "names": names, "known": known or []}
        process.stdin.write(json.dumps(config))
        process.stdin.close()
        process.stdin = None
        ready = json.loads(process.stdout.readline())
        yield Answering(process, ready["port"])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
