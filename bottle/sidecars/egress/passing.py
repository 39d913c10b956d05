"""Bodies that are too large, or of no known size, are read as they pass: for known values out, for tokens in.

What passes is a list of blocks, none of them empty: an empty block is how the end of a chunked body is written.
"""

from __future__ import annotations

from bottle.sidecars.egress import archives, search
from bottle.sidecars.egress.encodings import Decoder, Unreadable
from bottle.sidecars.egress.engines import take_room
from opsexec.far.known_values import KnownValues, Stream

DEEP_BYTES = 1 << 20
"""The beginning of a body, in bytes, that is searched as a whole one is; behind it one layer of encoding is seen."""

LAG = 1 << 20
"""So much waits, in bytes, where something is packed in blocks: more than the largest one of bzip2 or zstd."""


class Reading:
    """A request's body on its way out. `refused`: why nothing more of it passes, "" while all is well."""

    def __init__(self, known: KnownValues, encoding: str) -> None:
        self._known = known
        self._decoder = None if encoding == "identity" else Decoder(encoding)
        self._plain = Stream(known, mask=False)
        self._inside = Stream(known, mask=False)
        self._beginning = b""
        self._room = DEEP_BYTES
        self._packed = archives.Unpacking(known, search.find, DEEP_BYTES) if known else None
        self._lagging = b""
        self._lags = False
        self.refused = ""

    def feed(self, block: bytes) -> list[bytes]:
        """Return what may pass by now; an empty block is the end."""
        if self.refused:
            return []
        passed = self._plain.feed(block)
        try:
            found = self._plain.found or (self._look_inside(block) if self._decoder is None else self._unpack(block))
        except Unreadable as error:
            self.refused = f"the body can't be read: {error}"
            return []
        except archives.Holds as error:
            found = error.name
        if found is not None:
            self.refused = f"the body holds the value of {found}"
            return []
        if self._lags:
            passed = self._lagging + passed
            self._lagging = passed[max(0, len(passed) - LAG) :] if block else b""
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
        found = self._look_deeply(block)
        if found is None and self._packed is not None:
            self._packed.feed(block)
            if self._packed.lags and not self._lags:
                take_room(self, LAG)
                self._lags = True
        return found

    def _look_deeply(self, block: bytes) -> str | None:
        """Search the beginning of a body in every layer, each time it has doubled and once at its end."""
        if self._room <= 0 or not (block or self._beginning):
            return None
        before = len(self._beginning)
        self._beginning += block[: self._room]
        self._room = DEEP_BYTES - len(self._beginning)
        if block and self._room > 0 and before and len(self._beginning) < 2 * self._looked:
            return None
        self._looked = len(self._beginning)
        found = search.find(self._known, self._beginning)
        if self._room <= 0 or not block:
            self._beginning, self._room = b"", 0
        return found

    _looked = 0


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
