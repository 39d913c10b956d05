"""The shape of what crosses to the host and back: a message is a list of byte strings, nothing more to parse.

Wire form: a 4-byte big-endian count, then for each item a 4-byte big-endian length and its bytes.
"""

from __future__ import annotations

from struct import pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_ITEMS = 1 << 20
"""More than execve(2) takes words; every item costs 4 bytes of its message, so a small message can't claim many."""


def pack_message(items: Sequence[bytes]) -> bytes:
    """Return the wire form of a message."""
    parts = [pack(">I", len(items))]
    for item in items:
        parts.append(pack(">I", len(item)))
        parts.append(item)
    return b"".join(parts)


def unpack_message(data: bytes) -> list[bytes]:
    """Return the items of a message; raises ValueError unless the data is exactly one."""
    size = len(data)
    if size < 4:
        raise ValueError("a message needs 4 bytes")
    (count,) = unpack_from(">I", data)
    if count > MAX_ITEMS:
        raise ValueError("too many items in a message")
    items = []
    at = 4
    for _ in range(count):
        if at + 4 > size:
            raise ValueError("a message ends inside an item's length")
        (length,) = unpack_from(">I", data, at)
        at += 4
        if at + length > size:
            raise ValueError("a message ends inside an item")
        items.append(data[at : at + length])
        at += length
    if at != size:
        raise ValueError("a message has bytes after its end")
    return items


def as_bytes(text: str) -> bytes:
    """Return text as it crosses, whatever the locale of this process is: UTF-8, or the bytes that it stands for."""
    return text.encode("utf-8", "surrogateescape")


def as_text(data: bytes) -> str:
    """Return bytes as text that `as_bytes` turns back into the same bytes."""
    return data.decode("utf-8", "surrogateescape")


def pack_layers(layers: Iterable[Iterable[str]]) -> bytes:
    """Return grants (patterns layer by layer) as one item: a message of messages."""
    return pack_message([pack_message([as_bytes(p) for p in layer]) for layer in layers])


def unpack_layers(data: bytes) -> list[list[str]]:
    """Return the grants that `pack_layers` packed."""
    return [[as_text(p) for p in unpack_message(layer)] for layer in unpack_message(data)]


class FarError(Exception):
    """An operation failed on the host: a short code, a sentence, and details; crosses back as a message."""

    def __init__(self, code: str, text: str, *details: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.details = details
