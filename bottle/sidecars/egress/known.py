"""Known values: finds a bottle's own secrets in what leaves, in the encodings people and programs use, and masks them.

Matching is against values that are known, never by how a secret might look, so nothing else is ever refused.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Iterable
from urllib.parse import quote, unquote_to_bytes

MIN_BYTES = 8
"""Shorter values are too common in ordinary text to be looked for."""

MAX_DEPTH = 4
OVERLAP = 2048
"""How much of what has passed is looked at again with the next block, in bytes: spellings with something between."""

_RUN = re.compile(rb"[A-Za-z0-9+/_=-]{12,}")
_HEX_RUN = re.compile(rb"(?:[0-9A-Fa-f]{2}){8,}")
_NOT_ALNUM = re.compile(rb"[^0-9A-Za-z]+")
_ESCAPES = re.compile(rb"\\u00([0-9A-Fa-f]{2})|\\x([0-9A-Fa-f]{2})|&#x?([0-9A-Fa-f]{2,3});")
_INVISIBLE = tuple(each.encode() for each in "\u200b\u200c\u200d\u2060\ufeff\u00ad")
_COMBINING = re.compile("[\u0300-\u036f]+")


def spellings(secret: bytes) -> tuple[bytes, ...]:
    """Return the texts a value may stand as inside other text: plain, base64 at each offset, base32, hex, escaped."""
    found = {secret, secret[::-1]}
    for offset in range(3):
        found |= {_inner64(secret, offset, base64.b64encode), _inner64(secret, offset, base64.urlsafe_b64encode)}
    for offset in range(5):
        whole = base64.b32encode(b"\0" * offset + secret).rstrip(b"=")
        first = -(-offset * 8 // 5)
        last = (offset + len(secret)) * 8 // 5
        found |= {whole[first:last], whole[first:last].lower()}
    found |= {secret.hex().encode(), secret.hex().upper().encode()}
    text = secret.decode("latin-1")
    found |= {quote(text, safe="", encoding="latin-1").encode(), quote(text, encoding="latin-1").encode()}
    found.add("".join(f"%{byte:02X}" for byte in secret).encode())
    found.add("".join(f"%{byte:02x}" for byte in secret).encode())
    return tuple(sorted((each for each in found if len(each) >= MIN_BYTES), key=len, reverse=True))


def _inner64(secret: bytes, offset: int, encode: Callable[[bytes], bytes]) -> bytes:
    """Return the characters of base64 text that hold nothing but bits of the secret, which begins at this offset."""
    whole = encode(b"\0" * offset + secret).rstrip(b"=")
    first = -(-offset * 8 // 6)
    last = (offset + len(secret)) * 8 // 6
    return whole[first:last]


class KnownValues:
    """The values of one bottle. `name -> value`; the name is what audit lines say."""

    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        self._spelled: list[tuple[bytes, str]] = []
        self._squeezed: list[tuple[bytes, str]] = []
        for name, value in values:
            secret = value.encode("utf-8")
            if len(secret) < MIN_BYTES:
                continue
            self._spelled += [(each, name) for each in spellings(secret)]
            tight = _NOT_ALNUM.sub(b"", secret).lower()
            if len(tight) >= 2 * MIN_BYTES:
                self._squeezed += [(each, name) for each in (tight, tight[::-1], secret.hex().encode())]
        self.longest = max((len(each) for each, _ in self._spelled), default=0)

    @property
    def needles(self) -> list[bytes]:
        """Every spelling, longest first."""
        return sorted((each for each, _ in self._spelled), key=len, reverse=True)

    def find(self, data: bytes, depth: int = MAX_DEPTH) -> str | None:
        """Return the name of a value that stands in `data`, else None. `depth`: layers of encoding to take off first.

        One layer of the common encodings is found at depth 0 too, by how it spells the value.
        """
        return self._find(data, depth) if self._spelled else None

    def _find(self, data: bytes, depth: int) -> str | None:
        for needle, name in self._spelled:
            if needle in data:
                return name
        tight = _NOT_ALNUM.sub(b"", data).lower()
        for needle, name in self._squeezed:
            if needle in tight:
                return name
        if depth == 0:
            return None
        for inner in _decoded(data):
            name_found = self._find(inner, depth - 1)
            if name_found is not None:
                return name_found
        return None


def _decoded(data: bytes) -> list[bytes]:
    """Return what this may stand for once one layer of encoding is taken off, all that differ from it."""
    found = []
    if b"%" in data:
        plain = data
        for _ in range(10):
            again = unquote_to_bytes(plain)
            if again == plain:
                break
            plain = again
        found.append(plain)
    if b"\\" in data or b"&#" in data:
        found.append(_ESCAPES.sub(lambda each: bytes([_code(each)]), data))
    if not data.isascii():
        found.append(_plainer(data))
    runs = []
    for run in _RUN.findall(data):
        plain = run.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        for cut in range(4):
            part = plain[cut:]
            part = part[: len(part) - (len(part) % 4 == 1)]
            try:
                runs.append(base64.b64decode(part + b"=" * (-len(part) % 4)))
            except (ValueError, binascii.Error):
                continue
    runs += [binascii.unhexlify(run) for run in _HEX_RUN.findall(data)]
    if runs:
        found.append(b"\0".join(runs))
    return [each for each in found if each != data]


def _plainer(data: bytes) -> bytes:
    """Return text without what can't be seen, and its letters in their plainest form, where it is text at all."""
    for character in _INVISIBLE:
        data = data.replace(character, b"")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data
    return _COMBINING.sub("", unicodedata.normalize("NFKD", text)).encode()


def _code(found: re.Match[bytes]) -> int:
    if found[3] is not None:
        digits = found[3].decode()
        return int(digits, 16 if b"x" in found[0] else 10) & 0xFF if digits.isdigit() or b"x" in found[0] else 0x3F
    return int(found[1] or found[2], 16)


class Stream:
    """Looks for values in a stream, across its blocks: what might be the beginning of one is held back."""

    def __init__(self, values: KnownValues, *, mask: bool) -> None:
        self._values = values
        self._needles = values.needles
        self._mask = mask
        self._held = b""
        self._passed = b""
        self.found = False

    def feed(self, block: bytes) -> bytes:
        """Return what may pass by now; an empty block is the end. Unmasked, nothing passes once a value was found."""
        data = self._held + block
        self._held = b""
        if self._mask:
            for needle in self._needles:
                if needle in data:
                    self.found = True
                    data = data.replace(needle, b"*" * len(needle))
        elif self.found or self._values.find(self._passed + data, depth=0) is not None:
            self.found = True
            return b""
        if not block:
            return data
        keep = self._beginning(data)
        if keep:
            self._held = data[-keep:]
            data = data[:-keep]
        if not self._mask:
            self._passed = (self._passed + data)[-OVERLAP:]
        return data

    def _beginning(self, data: bytes) -> int:
        """Return how many bytes at the end could be the beginning of a value."""
        window = data[-self._values.longest :]
        longest = 0
        for needle in self._needles:
            at = window.find(needle[:1])
            while at >= 0 and len(window) - at > longest:
                if needle.startswith(window[at:]):
                    longest = len(window) - at
                    break
                at = window.find(needle[:1], at + 1)
        return longest
