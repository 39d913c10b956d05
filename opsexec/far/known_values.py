"""Values that must not leave, found in whatever spelling stands in front of us, and masked in what comes back.

Matching is against values that are known, never by how a secret might look, so nothing else is ever refused. The git
gate's scan and the egress gate both go by this. Standard library alone, Python 3.8 on: it is sent to where it runs.
"""

from __future__ import annotations

from opsexec.far.needles import Beginnings, Needles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_BYTES = 8
"""Shorter values are too common in ordinary text to be looked for."""

PIECE = 10
"""A piece of a value this long, cut at its multiples, is told too, where it hardly stands anywhere else."""

LONGEST_NUMBER = 1024
"""Longer values, in bytes, aren't told as one number: what writing it down takes grows with their square."""

OVERLAP = 2048
"""How much of what has passed is looked at again with the next block, in bytes: spellings with something between."""

_NOT_ALNUM = bytes(byte for byte in range(256) if not (byte < 128 and chr(byte).isalnum()))

_UPPER, _LOWER, _FIGURES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz", b"0123456789"
_BASE64 = _UPPER + _LOWER + _FIGURES + b"+/"
_UUENCODE = bytes(range(32, 96))
_BASE85 = _FIGURES + _UPPER + _LOWER + b"!#$%&()*+-;<=>?@^_`{|}~"
"""RFC 1924's letters, which git and Python use."""
_Z85 = _FIGURES + _LOWER + _UPPER + b".-:+=^!/*?&<>()[]{}@%$#"
"""Those of 32/Z85, ZeroMQ's."""
_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ROT13 = bytes.maketrans(_UPPER + _LOWER, _UPPER[13:] + _UPPER[:13] + _LOWER[13:] + _LOWER[:13])


def spellings(secret: bytes) -> set[bytes]:
    """Return the texts a value may stand as: plain, backwards, base64 and its like at each offset, hex, escaped."""
    return {each for each in _plainly(secret) | _in_fours(secret) | _as_number(secret) if len(each) >= MIN_BYTES}


def _in_fours(secret: bytes) -> set[bytes]:
    """Return base85 in its three alphabets, wherever its groups of four bytes begin."""
    import base64

    found = set()
    for offset in range(4):
        groups = secret[offset : offset + (len(secret) - offset) // 4 * 4]
        spelled = base64.b85encode(groups)
        found |= {spelled, spelled.translate(bytes.maketrans(_BASE85, _Z85)), base64.a85encode(groups)}
    return found


def _as_number(secret: bytes) -> set[bytes]:
    """Return the value by itself as one number: in base58, and with ten figures."""
    if len(secret) > LONGEST_NUMBER:
        return set()
    number = left = int.from_bytes(secret, "big")
    letters = bytearray()
    while left:
        left, letter = divmod(left, 58)
        letters.append(_BASE58[letter])
    return {bytes(reversed(letters)), b"%d" % number}


def _plainly(secret: bytes) -> set[bytes]:
    import base64
    import json
    from urllib.parse import quote

    found = {secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode(), secret.translate(_ROT13)}
    for offset in range(3):
        whole = base64.b64encode(b"\0" * offset + secret).rstrip(b"=")
        inner = whole[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6]
        uu = inner.translate(bytes.maketrans(_BASE64, _UUENCODE))
        found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_")), uu, uu.replace(b" ", b"`")}
    for offset in range(5):
        whole = base64.b32encode(b"\0" * offset + secret).rstrip(b"=")
        inner = whole[-(-offset * 8 // 5) : (offset + len(secret)) * 8 // 5]
        found |= {inner, inner.lower()}
    text = secret.decode("latin-1")
    found |= {quote(text, safe="", encoding="latin-1").encode(), quote(text, encoding="latin-1").encode()}
    found |= {"".join(form % byte for byte in secret).encode() for form in ("%%%02X", "%%%02x")}
    try:
        plain = secret.decode("utf-8")
    except UnicodeDecodeError:
        plain = ""
    found |= {json.dumps(plain)[1:-1].encode(), plain.encode("utf-16-le"), plain.encode("utf-16-be")}
    return found


def pieces(secret: bytes) -> set[bytes]:
    """Return pieces of a long value that hardly stand anywhere else: letters and digits mixed, few of them twice.

    What a value shares with others of its kind is no piece of it: a JSON web token's head, an address, a word.
    """
    found = set()
    head = secret.find(b".") if secret.startswith(b"eyJ") else 0
    for at in range(0, len(secret) - PIECE + 1, PIECE):
        piece = secret[at : at + PIECE]
        letters = piece.isascii() and piece.isalnum() and not piece.isalpha() and not piece.isdigit()
        if at >= head and letters and len(set(piece)) >= 7:
            found.add(piece)
    return found if len(secret) >= 2 * PIECE else set()


class KnownValues:
    """`name -> value`; the name is what a refusal says, never the value."""

    def __init__(self, values: Mapping[str, str]) -> None:
        spellings_of = []  # type: list[tuple[bytes, str]]
        pieces_of = []  # type: list[tuple[bytes, str]]
        squeezed = []  # type: list[tuple[bytes, str]]
        for name, value in values.items():
            secret = value.encode("utf-8", "surrogateescape")
            if len(secret) < MIN_BYTES:
                continue
            spelled = spellings(secret)
            spellings_of += [(each, name) for each in sorted(spelled)]
            pieces_of += [(each, name) for each in sorted(pieces(secret) - spelled)]
            tight = secret.translate(None, _NOT_ALNUM).lower()
            if len(tight) >= 2 * MIN_BYTES:
                squeezed += [(each, name) for each in (tight, tight[::-1], secret.hex().encode())]
        self._spelled = Needles(spellings_of + pieces_of)
        self._squeezed = Needles(squeezed)
        self.longest = max((len(each) for each, _ in spellings_of), default=0)
        self.whole = sorted((each for each, _ in spellings_of), key=len, reverse=True)
        """Every spelling of whole values, longest first."""
        self._by_start = {}  # type: dict[bytes, list[bytes]]
        for each in self.whole:
            self._by_start.setdefault(each[:MIN_BYTES], []).append(each)
        self._starts = frozenset(start[:size] for start in self._by_start for size in range(1, MIN_BYTES))
        self._begun = Beginnings(self.whole)

    def __bool__(self) -> bool:
        return bool(self._spelled)

    def find(self, data: bytes) -> str | None:
        """Return the name of a value that stands in `data` as it is, whole or a good part of it."""
        return self._spelled.first_in(data)

    def find_scattered(self, text: bytes) -> str | None:
        """Return the name of a value that stands in `text` once case and all but letters and digits are left out."""
        if not self._squeezed:
            return None
        tight = text.translate(None, _NOT_ALNUM).lower()
        return self._squeezed.first_in(tight)

    def beginning(self, data: bytes) -> int:
        """Return how many bytes at the end of `data` could be the beginning of a value."""
        window = data[-self.longest :] if self.longest else b""
        if not self._begun.may_be_in(window):
            window = window[1 - self._begun.least :]
        size = len(window)
        for at in range(size - MIN_BYTES + 1):
            for needle in self._by_start.get(window[at : at + MIN_BYTES], ()):
                if needle.startswith(window[at:]):
                    return size - at
        return next((each for each in range(min(size, MIN_BYTES - 1), 0, -1) if window[-each:] in self._starts), 0)


class Stream:
    """Looks for values in a stream, across its blocks: what might be the beginning of one is held back."""

    def __init__(self, values: KnownValues, *, mask: bool) -> None:
        self._values = values
        self._mask = mask
        self._held = b""
        self._passed = b""
        self.found = None  # type: str | None
        """The name of what was found; "" where it was masked."""

    def feed(self, block: bytes) -> bytes:
        """Return what may pass by now; an empty block is the end. Unmasked, nothing passes once a value was found."""
        data = self._held + block
        self._held = b""
        if self._mask:
            for needle in self._values.whole:
                if needle in data:
                    self.found = ""
                    data = data.replace(needle, b"*" * len(needle))
        else:
            if self.found is None and block:  # at the end, all that is there was looked at before
                text = self._passed + data
                self.found = self._values.find(text) or self._values.find_scattered(text)
            if self.found is not None:
                return b""
        if not block:
            return data
        keep = self._values.beginning(data)
        if keep:
            self._held = data[-keep:]
            data = data[:-keep]
        if not self._mask:
            self._passed = (self._passed + data)[-OVERLAP:]
        return data
