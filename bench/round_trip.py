"""How long a round trip through the delay proxy really is: its own work comes on top of what it adds."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator

from tests.parts.delay_proxy import DelayProxy

PING = b"x" * 200
"""About a step's size on the wire."""
TRIPS = 100


def round_trip_ms(added_ms: float) -> float:
    """Median milliseconds of PING and its echo through a proxy that adds `added_ms`."""
    with (
        _echo() as target,
        DelayProxy(target, rtt_ms=added_ms) as proxy,
        socket.create_connection((proxy.address, proxy.port), timeout=10) as link,
    ):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return statistics.median(_ping(link) for _ in range(TRIPS)) * 1000


def _ping(link: socket.socket) -> float:
    start = time.perf_counter()
    link.sendall(PING)
    left = len(PING)
    while left:
        data = link.recv(left)
        if not data:
            raise ConnectionError("the delay proxy closed the connection")
        left -= len(data)
    return time.perf_counter() - start


@contextlib.contextmanager
def _echo() -> Iterator[tuple[str, int]]:
    """Answer one connection with what it sends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server,), daemon=True)
        thread.start()
        host, port = server.getsockname()
        yield host, port
    thread.join(10)


def _answer(server: socket.socket) -> None:
    link, _ = server.accept()
    with link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := link.recv(4096):
            link.sendall(data)
