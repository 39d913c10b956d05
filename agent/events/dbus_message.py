"""Messages of the D-Bus wire format, read: as much of it as following a service manager takes.

After the D-Bus specification, "Message Protocol": a fixed head, an array of header fields, and a body whose types the
SIGNATURE field names. Every value is aligned to its size, counted from the message's beginning.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

HEAD_BYTES = 16
MAX_BYTES = 1 << 20
SIGNAL = 4

_NAMES = 1, 2, 3, 8
"""Header fields: PATH, INTERFACE, MEMBER, SIGNATURE."""

_FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}
_ALIGNED = {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8} | {
    code: struct.calcsize(size) for code, size in _FIXED.items()
}
_CLOSING = {"(": ")", "{": "}"}


class Message(NamedTuple):
    """One message. `kind`: 4 is a signal; names are empty where there are none. `signature`: the types in `body`."""

    kind: int
    path: str
    interface: str
    member: str
    signature: str
    body: tuple[Any, ...]


def message_bytes(head: bytes) -> int:
    """Return how long the message is that begins with these HEAD_BYTES bytes; raises ValueError for what is none."""
    order = _order(head)
    (body,) = struct.unpack_from(f"{order}I", head, 4)
    (fields,) = struct.unpack_from(f"{order}I", head, 12)
    size = HEAD_BYTES + fields + -fields % 8 + body
    if head[3] != 1 or size > MAX_BYTES:
        raise ValueError("not a D-Bus message of a size that is taken")
    return int(size)


def read_message(data: bytes) -> Message:
    """Return a whole message; raises ValueError for what is none."""
    try:
        reader = _Reader(data, _order(data))
        reader.at = HEAD_BYTES - 4
        fields = dict(reader.value("a(yv)"))
        reader.at += -reader.at % 8
        path, interface, member, signature = (str(fields.get(code, "")) for code in _NAMES)
        body = tuple(reader.value(each) for each in _types(signature))
        return Message(data[1], path, interface, member, signature, body)
    except (struct.error, LookupError, TypeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"not a D-Bus message ({type(error).__name__})") from error


def _order(head: bytes) -> str:
    try:
        return {ord("l"): "<", ord("B"): ">"}[head[0]]
    except LookupError as error:
        raise ValueError("not a D-Bus message") from error


def _types(signature: str) -> list[str]:
    """Split a signature into its single complete types; raises LookupError for what is none."""
    found = []
    at = 0
    while at < len(signature):
        end = _end(signature, at)
        found.append(signature[at:end])
        at = end
    return found


def _end(signature: str, at: int) -> int:
    code = signature[at]
    if code == "a":
        return _end(signature, at + 1)
    at += 1
    if code in _CLOSING:
        while signature[at] != _CLOSING[code]:
            at = _end(signature, at)
        return at + 1
    return at


class _Reader:
    """Reads values one after another."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self.at = 0

    def value(self, kind: str) -> Any:
        """Return the next value, of one complete type."""
        code = kind[0]
        self.at += -self.at % _ALIGNED[code]
        if code in _FIXED:
            (found,) = struct.unpack_from(self._order + _FIXED[code], self._data, self.at)
            self.at += _ALIGNED[code]
            return found
        if code in "sog":
            return self._text(self.value("y" if code == "g" else "u"))
        if code == "v":
            (inner,) = _types(self.value("g"))
            return self.value(inner)
        if code == "a":
            return self._array(kind[1:])
        return tuple(self.value(each) for each in _types(kind[1:-1]))

    def _text(self, size: int) -> str:
        begin, self.at = self.at, self.at + size + 1
        if self.at > len(self._data):
            raise IndexError("a text beyond the end")
        return self._data[begin : begin + size].decode()

    def _array(self, inner: str) -> list[Any]:
        size = self.value("u")
        self.at += -self.at % _ALIGNED[inner[0]]
        end = self.at + size
        if end > len(self._data):
            raise IndexError("an array beyond the end")
        found = []
        while self.at < end:
            before = self.at
            found.append(self.value(inner))
            if self.at == before:
                raise IndexError("an array of nothing")
        return found
