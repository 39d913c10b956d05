"""Values that must not leave, found in whatever spelling stands in front of us: plain, reversed, encoded, in pieces."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_BYTES = 8
"""Shorter values are too common in ordinary text to be looked for."""

PIECE = 10
"""A piece of a value this long, cut at its multiples, is told too: so any 19 bytes of it in a row are found."""

_NOT_ALNUM = bytes(byte for byte in range(256) if not (byte < 128 and chr(byte).isalnum()))


def spellings(secret: bytes) -> set[bytes]:
    """Return the texts a value may stand as inside other text."""
    import base64

    found = {secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode()}
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"\0" * offset + secret).rstrip(b"=")
            found.add(whole[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6])
    for offset in range(5):
        whole = base64.b32encode(b"\0" * offset + secret).rstrip(b"=")
        inner = whole[-(-offset * 8 // 5) : (offset + len(secret)) * 8 // 5]
        found |= {inner, inner.lower()}
    found |= {each[::-1] for each in list(found)}
    return {each for each in found if len(each) >= MIN_BYTES}


def pieces(secret: bytes) -> set[bytes]:
    """Return pieces of a long value that hardly stand anywhere else: letters and digits mixed, few of them twice."""
    found = set()
    for at in range(0, len(secret) - PIECE + 1, PIECE):
        piece = secret[at : at + PIECE]
        mixed = any(48 <= byte <= 57 for byte in piece) and any(chr(byte).isalpha() for byte in piece)
        if mixed and len(set(piece)) >= 7:
            found.add(piece)
    return found if len(secret) >= 2 * PIECE else set()


class KnownValues:
    """`name -> value`; the name is what a refusal says, never the value."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._needles = []  # type: list[tuple[bytes, str]]
        self._squeezed = []  # type: list[tuple[bytes, str]]
        for name, value in values.items():
            secret = value.encode("utf-8", "surrogateescape")
            if len(secret) < MIN_BYTES:
                continue
            self._needles += [(each, name) for each in sorted(spellings(secret) | pieces(secret))]
            tight = secret.translate(None, _NOT_ALNUM).lower()
            if len(tight) >= 2 * MIN_BYTES:
                self._squeezed += [(each, name) for each in (tight, tight[::-1], secret.hex().encode())]

    def find(self, data: bytes) -> str | None:
        """Return the name of a value that stands in `data` as it is."""
        for needle, name in self._needles:
            if needle in data:
                return name
        return None

    def find_scattered(self, text: bytes) -> str | None:
        """Return the name of a value that stands in `text` once case and all but letters and digits are left out."""
        if not self._squeezed:
            return None
        tight = text.translate(None, _NOT_ALNUM).lower()
        for needle, name in self._squeezed:
            if needle in tight:
                return name
        return None
