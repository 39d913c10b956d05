"""Bodies that are too large, or of no known size, are read as they pass: for known values out, for tokens in.

What passes is a list of blocks, none of them empty: an empty block is how the end of a chunked body is written.
"""

from __future__ import annotations

from bottle.sidecars.egress import archives, search
from bottle.sidecars.egress.encodings import Decoder, why
from bottle.sidecars.egress.engines import take_room
from opsexec.far.known_values import KnownValues, Stream

DEEP_BYTES = 1 << 20
"""The beginning of a body, in bytes, that is searched as a whole one is; behind it one layer of encoding is seen."""

BEHIND = 8 << 10
"""With so much of what came before it, in bytes, each block of a body's beginning is searched in every layer."""

MAX_BEHIND = 8 << 20
"""So much of that is searched for a body, in bytes; after that, with a quarter: its blocks are of a few bytes each."""


ANOTHER_LENGTH = "the body isn't as long as it says"
"""In HTTP/2 a request may end without the body that it promised; in HTTP/1 the next one would be read as that body."""


class Reading:
    """A request's body on its way out. `refused`: why nothing more of it passes, "" while all is well.

    `length`: how many bytes it says it has, "" where it doesn't.

    Nothing is raised for a body: what can't be judged, whatever the cause, is refused.
    """

    def __init__(self, known: KnownValues, encoding: str, length: str = "") -> None:
        self._known = known
        self._left = int(length) if length else None
        self._decoder = None if encoding == "identity" else Decoder(encoding)
        self._plain = Stream(known, mask=False)
        self._inside = Stream(known, mask=False)
        self._beginning = _Beginning(known)
        self._packed = archives.Unpacking(known, search.find, DEEP_BYTES) if known else None
        self._lagging = b""
        self._lag = 0
        self.refused = ""

    def feed(self, block: bytes) -> list[bytes]:
        """Return what may pass by now; an empty block is the end."""
        if self.refused:
            return []
        if self._left is not None:
            self._left -= len(block)
            if self._left and not block:
                self.refused = ANOTHER_LENGTH
                return []
        try:
            passed = self._plain.feed(block)
            found = self._plain.found or (self._look_inside(block) if self._decoder is None else self._unpack(block))
        except archives.Holds as error:
            found = error.name
        except Exception as error:  # noqa: BLE001  # mitmproxy goes on when this fails: what isn't judged doesn't leave
            self.refused = f"the body {why(error)}"
            return []
        if found is not None:
            self.refused = f"the body holds the value of {found}"
            return []
        if self._lag:
            passed = self._lagging + passed
            self._lagging = passed[max(0, len(passed) - self._lag) :] if block else b""
            passed = passed[: len(passed) - len(self._lagging)]
        return [passed] if passed else []

    def _unpack(self, block: bytes) -> str | None:
        """Search what comes out of an encoded body; the body itself passes as it is, and not before."""
        assert self._decoder is not None
        if not block:
            self._decoder.end()
            self._inside.feed(b"")
            return self._inside.found or self._look_inside(b"")
        for piece in self._decoder.feed(block):
            if not piece:
                continue
            self._inside.feed(piece)
            found = self._inside.found or self._look_inside(piece)
            if found is not None:
                return found
        return None

    def _look_inside(self, block: bytes) -> str | None:
        found = self._beginning.look(block)
        if found is None and self._packed is not None:
            self._packed.feed(block)
            if self._packed.lag > self._lag:
                take_room(self, self._packed.lag - self._lag)
                self._lag = self._packed.lag
        return found


class _Beginning:
    """The beginning of a body, searched in every layer: each block of it at once, the whole when it has doubled."""

    def __init__(self, known: KnownValues) -> None:
        self._known = known
        self._behind = max(BEHIND, 2 * known.longest)
        self._left = MAX_BEHIND
        self._data = bytearray()
        self._looked = 0
        self._over = False

    def look(self, block: bytes) -> str | None:
        """Return the name of a value that stands in it by now; an empty block is the end."""
        if self._over or not (block or self._data):
            return None
        at = len(self._data)
        self._data += block[: DEEP_BYTES - at]
        size = len(self._data)
        self._over = size >= DEEP_BYTES or not block
        if self._over or size >= 2 * self._looked:
            self._looked, whole = size, bytes(self._data)
            if self._over:
                self._data = bytearray()
            return search.find(self._known, whole)
        behind = min(at, self._behind if self._left > 0 else self._behind // 4)
        self._left -= behind
        return search.find(self._known, bytes(self._data[at - behind :]))


class Masking:
    """A response on its way in: a content encoding is taken off, and a token in it is masked."""

    def __init__(self, tokens: KnownValues, encoding: str = "identity") -> None:
        self._decoder = None if encoding == "identity" else Decoder(encoding)
        self._mask = Stream(tokens, mask=True)

    def feed(self, block: bytes) -> list[bytes]:
        """Return what may pass by now; raises Unreadable, which ends the connection."""
        if self._decoder is None:
            found = [self._mask.feed(block)]
        elif block:
            found = [self._mask.feed(piece) for piece in self._decoder.feed(block) if piece]
        else:
            self._decoder.end()
            found = [self._mask.feed(b"")]
        return [each for each in found if each]


def masked(tokens: KnownValues, text: bytes) -> bytes:
    """Return a whole text with the tokens in it masked."""
    stream = Stream(tokens, mask=True)
    return stream.feed(text) + stream.feed(b"")


def may_have_body(method: str, status: int) -> bool:
    """False for answers that have no body whatever their headers say."""
    return method != "HEAD" and status not in (204, 304)
