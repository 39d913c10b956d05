"""Runs inside a network namespace: a DNS server on its loopback that answers from a list, then the program it is told.

`python -m tests.parts.rebinding ANSWERS RESOLV PROGRAM ...`: ANSWERS is JSON, name -> a list of answers, each a list of
addresses; the n-th question gets the n-th answer, and further ones the last. Each question is a line on stderr.
Public addresses among them are put on that loopback, so that whoever dials one stays there.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections import Counter


def reply(query: bytes, answers: dict[str, list[list[str]]], asked: Counter[str]) -> bytes:
    """One answer to one question (RFC 1035, 4.1): A records, or none."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    name, kind = ".".join(labels), int.from_bytes(query[at + 1 : at + 3], "big")
    found: list[str] = []
    if kind == 1 and name in answers:
        found = answers[name][min(asked[name], len(answers[name]) - 1)]
        asked[name] += 1
        print(f"asked {name}", file=sys.stderr, flush=True)
    records = b"".join(
        b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + ipaddress.IPv4Address(each).packed for each in found
    )
    head = query[:2] + b"\x81\x80\x00\x01" + len(found).to_bytes(2, "big") + b"\0\0\0\0"
    return head + query[12 : at + 5] + records


def main() -> None:
    """Bring loopback up, take the resolver's place, start the program in a child, and answer until it ends."""
    answers, resolv, *program = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    addresses = {each for found in json.loads(answers).values() for one in found for each in one}
    for address in sorted(each for each in addresses if ipaddress.ip_address(each).is_global):
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    subprocess.run(["mount", "--bind", resolv, os.path.realpath("/etc/resolv.conf")], check=True)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    if os.fork() == 0:
        table, asked = json.loads(answers), Counter[str]()
        parent = os.getppid()
        server.settimeout(0.5)
        os.close(0)
        os.close(1)
        while os.getppid() == parent:
            try:
                query, caller = server.recvfrom(512)
            except TimeoutError:
                continue
            server.sendto(reply(query, table, asked), caller)
        os._exit(0)
    server.close()
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
