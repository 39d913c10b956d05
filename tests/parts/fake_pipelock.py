#!/usr/bin/python3
"""Stands in for pipelock where it isn't installed: two commands, its configuration, tunnels. It decrypts nothing.

Standard library alone: it runs in a bundle.
"""

import argparse
import json
import os
import socket
import subprocess
import threading
from pathlib import Path


def tls_init(out: str) -> None:
    """An authority, as `pipelock tls init --out` makes it."""
    settings = Path(out, "openssl.cnf")
    settings.write_text("[req]\ndistinguished_name = name\n[name]\n")
    words = [
        "openssl",
        "req",
        "-config",
        str(settings),
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    words += ["-keyout", f"{out}/ca-key.pem", "-out", f"{out}/ca.pem", "-subj", "/CN=fake", "-days", "2"]
    subprocess.run(words, check=True, capture_output=True)


def log(**event: str) -> None:
    """One line of its log."""
    os.write(1, json.dumps(event).encode() + b"\n")


def run(config: str, listen: str) -> None:
    """Serve tunnels to allowed hosts."""
    allowed = set(json.loads(Path(config).read_text())["api_allowlist"])
    host, _, port = listen.rpartition(":")
    door = socket.create_server((host, int(port)))
    log(event="startup", listen=listen)
    while True:
        client, _ = door.accept()
        threading.Thread(target=tunnel, args=(client, allowed), daemon=True).start()


def tunnel(client: socket.socket, allowed: "set[str]") -> None:
    """One connection."""
    head = b""
    while b"\r\n\r\n" not in head:
        block = client.recv(4096)
        if not block:
            return
        head += block
    target = head.split()[1].decode()
    name, _, port = target.rpartition(":")
    if name not in allowed:
        log(event="blocked", target=target)
        client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        client.close()
        return
    try:
        there = socket.create_connection((name, int(port)), 10)
    except OSError:
        client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        client.close()
        return
    log(event="tunnel_open", target=target)
    client.sendall(b"HTTP/1.1 200 Connection Established\r\n\r\n")
    there.settimeout(None)
    threading.Thread(target=carry, args=(there, client), daemon=True).start()
    carry(client, there)


def carry(one: socket.socket, other: socket.socket) -> None:
    """Bytes one way."""
    try:
        while True:
            block = one.recv(65536)
            if not block:
                break
            other.sendall(block)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        one.close()


if __name__ == "__main__":
    commands = argparse.ArgumentParser()
    commands.add_argument("command")
    commands.add_argument("more", nargs="*")
    for option in ("--out", "--org", "--validity", "--config", "--listen", "--home"):
        commands.add_argument(option)
    chosen = commands.parse_args()
    if chosen.command == "tls":
        tls_init(chosen.out)
    else:
        run(chosen.config, chosen.listen)
