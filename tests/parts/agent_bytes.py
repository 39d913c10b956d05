"""Bytes for and from an agent, past its client: whole requests, whatever comes back, and what it costs the agent."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

HEAD = "POST /v1/steps HTTP/1.1\r\nHost: agent\r\nAccept: application/x-ndjson\r\n"


def post(body: bytes, *headers: str, path: str = "/v1/steps", length: int | None = None) -> bytes:
    """Return a request whose answer ends its connection."""
    lines = [f"POST {path} HTTP/1.1", "Host: agent", "Connection: close", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *headers: str) -> bytes:
    """Return a request whose answer ends its connection."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: agent", "Connection: close", *headers, "", ""]).encode()


def connected(path: Path, within_s: float = 10.0) -> socket.socket:
    """Return a connection."""
    end = time.monotonic() + within_s
    while True:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(within_s)
        try:
            link.connect(str(path))
            return link
        except BlockingIOError:  # so many wait to be taken that there is no room for one more
            link.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.002)


def answer(path: Path, request: bytes, *, within_s: float = 10.0) -> bytes:
    """Return all that comes back to some bytes until the connection is closed; b"" where it was reset.

    Raises TimeoutError when neither happens in time: that would be a hang.
    """
    with connected(path, within_s) as link:
        try:
            link.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has closed already; what it said first is read below
        said = b""
        try:
            while block := link.recv(65536):
                said += block
        except ConnectionResetError:
            return said
        return said


class Usage(NamedTuple):
    """What a process holds: resident memory in KiB, open file descriptors, threads."""

    rss_kib: int
    fds: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read it (proc(5))."""
        fields = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        return cls(int(fields["VmRSS"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"]))
