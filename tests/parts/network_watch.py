"""Who sends what in a network namespace: every frame on every interface, and listeners that count who reaches them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

ETH_P_ALL = 3
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806


class Sent(NamedTuple):
    """One kind of packet: where it was seen, whose (MAC), what (EtherType); for IPv4 from, to, protocol and port."""

    on: str
    mac: str
    kind: int
    source: str
    to: str
    protocol: int
    port: int


class Watch:
    """Reads frames until it is left; `seen`: each kind of packet once."""

    def __init__(self, within: Callable[[Callable[[], Any]], Any]) -> None:
        self.seen: set[Sent] = set()
        self._over = threading.Event()
        self._socket: socket.socket = within(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(10)
        self._socket.close()

    def by(self, mac: str, address: str) -> set[Sent]:
        """What one sender sent, and what went on in its name, but for its questions who has an address."""
        return {each for each in self.seen if (each.mac == mac and each.kind != ARP) or each.source == address}

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                frame, address = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            self.seen.add(sent(address[0], frame))


def sent(on: str, frame: bytes) -> Sent:
    """Take a frame apart as far as it matters here (Ethernet II, RFC 791)."""
    mac, kind = frame[6:12].hex(":"), int.from_bytes(frame[12:14], "big")
    if kind != IPV4 or len(frame) < 34:
        return Sent(on, mac, kind, "", "", 0, 0)
    at = 14 + (frame[14] & 15) * 4
    port = int.from_bytes(frame[at + 2 : at + 4], "big") if frame[23] in (6, 17) else 0
    return Sent(on, mac, kind, socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34]), frame[23], port)


class Listeners:
    """TCP and UDP services on all addresses of a namespace; `reached`: what came to them."""

    def __init__(self, within: Callable[[Callable[[], Any]], Any], tcp: tuple[int, ...], udp: tuple[int, ...]) -> None:
        self.reached: list[str] = []
        self._over = threading.Event()
        self._sockets = [within(partial(_bound, socket.SOCK_STREAM, port)) for port in tcp]
        self._sockets += [within(partial(_bound, socket.SOCK_DGRAM, port)) for port in udp]
        self._threads = [threading.Thread(target=self._serve, args=(each,)) for each in self._sockets]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def _serve(self, listener: socket.socket) -> None:
        while not self._over.is_set():
            try:
                if listener.type == socket.SOCK_STREAM:
                    connection, peer = listener.accept()
                    connection.close()
                else:
                    _, peer = listener.recvfrom(2048)
            except TimeoutError:
                continue
            self.reached.append(f"{peer[0]} -> {listener.getsockname()[1]}")


def _bound(kind: int, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    made.settimeout(0.2)
    return made
