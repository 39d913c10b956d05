"""A TCP port for a server that is started a moment after it was looked for."""

from __future__ import annotations

import errno
import secrets
import socket

FIRST, END = 20000, 32000
"""Below those that Linux gives to whoever asks for any (ip(7), ip_local_port_range: from 32768 on).

A port of that range, once the look at it is over, may be any outgoing connection's before the server is up."""
TRIES = 50


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port of an IPv4 address that nobody listens on; raises OSError when none of many is free."""
    for _ in range(TRIES):
        port = FIRST + secrets.randbelow(END - FIRST)
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        return port
    raise OSError(errno.EADDRINUSE, f"{TRIES} ports of {address} are all in use")
