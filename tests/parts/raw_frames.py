"""WebSocket and HTTP/2 frames, byte by byte, through an egress gate."""

from __future__ import annotations

import socket

from tests.parts.egress_gate import EgressGate


def frame(kind: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A masked WebSocket frame (RFC 6455, 5.2)."""
    mask = b"\x05\x06\x07\x08"
    head = bytes([kind | (0x80 if fin else 0) | (0x40 if rsv1 else 0)])
    size = len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def web_socket(gate: EgressGate, host: str, path: str = "/ws", extensions: str = "") -> socket.socket:
    """A WebSocket through the gate."""
    stream = gate.tls(host)
    more = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    stream.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n".encode()
    )
    said = b""
    while b"\r\n\r\n" not in said:
        block = stream.recv(1)
        assert block, said
        said += block
    assert b" 101 " in said, said
    return stream


def ended(stream: socket.socket) -> bool:
    """True when the other end closes it within the stream's own bound."""
    try:
        while stream.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2_get(
    stream: int, host: str, path: str, *, ends: bool = True, method: str = "GET", length: int | None = None
) -> bytes:
    """The head of an HTTP/2 request."""
    fields = [(":method", method), (":scheme", "https"), (":authority", host), (":path", path)]
    if length is not None:
        fields.append(("content-length", str(length)))
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields
    )
    return h2_frame(1, 5 if ends else 4, stream, block)


def h2_status(stream: socket.socket) -> int:
    """The first byte of the first answer's head: 0x88 is `:status: 200`; -1 for a reset or an end."""
    said = b""
    while True:
        while len(said) >= 9 and len(said) >= 9 + int.from_bytes(said[:3], "big"):
            size, kind = int.from_bytes(said[:3], "big"), said[3]
            payload, said = said[9 : 9 + size], said[9 + size :]
            if kind == 1:
                return payload[0]
            if kind in (3, 7):
                return -1
        try:
            block = stream.recv(65536)
        except OSError:
            return -1
        if not block:
            return -1
        said += block
