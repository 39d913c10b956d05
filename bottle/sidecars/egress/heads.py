"""A response's head with what may not come back masked in it, also where that is cut over its fields. Pure.

An agent reads a head as texts that follow each other. A value is looked for in each of the ways to read one in order,
and its pieces among whatever else stands between them. What is whole in none of these (another order, letters of the
upstream's own in a piece, one piece in the body) isn't recognised.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice

from opsexec.far.known_values import KnownValues

Field = tuple[bytes, bytes]
Segment = tuple[int, int, int]
"""Which text, and from where to where in it."""

_DIGITS = re.compile(rb"[0-9]+")
_WORD = re.compile(rb'[^\s,;"]+')
_COOKIE = re.compile(rb'\s*([^=;]*?)\s*=\s*"?([^";]*)')
"""A cookie's name and value (RFC 6265, 4.1.1)."""

LEAST_PIECE = 3
"""Pieces of a value with other fields between them have at least so many bytes, but for its last."""

MAX_PIECES = 512
"""So many words of a head are tried as such pieces."""

MAX_CUTS = 16
"""So many ways in which one value is cut are masked in a head."""


def masked_head(known: KnownValues, fields: Sequence[Field], reason: bytes = b"") -> tuple[list[Field], bytes]:
    """Return a head's fields, and its reason phrase, without a known value in any of the ways they may be read."""
    texts = [bytearray(reason)]
    for name, value in fields:
        texts += [bytearray(name), bytearray(value)]
    if known:
        for view in _views(texts):
            _mask(known, texts, view)
        _mask_among_others(known, texts)
    return [(bytes(texts[at]), bytes(texts[at + 1])) for at in range(1, len(texts), 2)], bytes(texts[0])


def masked_trailers(known: KnownValues, head: Sequence[Field], trailers: Sequence[Field]) -> list[Field]:
    """Return trailers without what is a known value in them, or behind the head that has been sent."""
    return masked_head(known, [*head, *trailers])[0][len(head) :]


def _views(texts: Sequence[bytearray]) -> Iterator[list[Segment]]:
    """Yield the ways to read a head, each as the parts of its texts in order: what is masked in one stays so."""
    whole = [(at, 0, len(text)) for at, text in enumerate(texts)]
    values = [whole[0], *whole[2::2]]
    words = [_words(texts, each) for each in values]
    yield whole
    yield values
    yield whole[1::2]
    yield [word for each in words for word in each]
    alike: dict[bytes, list[Segment]] = {}
    for at in range(1, len(texts), 2):
        name = _DIGITS.sub(b"", bytes(texts[at])).lower()  # x-part-1 and x-part-2 are pieces of one
        alike.setdefault(name, []).extend(words[(at + 1) // 2])
    yield from (each for each in alike.values() if len(each) > 1)
    cookies = [_cookie(texts[at + 1], at + 1) for at in range(1, len(texts), 2) if texts[at].lower() == b"set-cookie"]
    yield [part for each in cookies for part in each]
    yield [each[0] for each in cookies if each]
    yield [each[1] for each in cookies if each]


def _words(texts: Sequence[bytearray], segment: Segment) -> list[Segment]:
    at = segment[0]
    return [(at, *found.span()) for found in _WORD.finditer(texts[at])]


def _cookie(value: bytearray, at: int) -> list[Segment]:
    found = _COOKIE.match(value)
    return [] if found is None else [(at, *found.span(1)), (at, *found.span(2))]


def _mask(known: KnownValues, texts: Sequence[bytearray], view: Sequence[Segment]) -> None:
    """Put stars in the place of each known value that stands in the segments one behind the other."""
    starts, joined = [], bytearray()
    for at, begin, end in view:
        starts.append(len(joined))
        joined += texts[at][begin:end]
    for needle in known.whole:
        found = joined.find(needle)
        while found >= 0:
            over = found + len(needle)
            joined[found:over] = b"*" * len(needle)
            part = bisect_right(starts, found) - 1
            while part < len(view) and starts[part] < over:
                at, begin, end = view[part]
                first, last = max(found - starts[part], 0), min(over - starts[part], end - begin)
                texts[at][begin + first : begin + last] = b"*" * (last - first)
                part += 1
            found = joined.find(needle, over)


def _mask_among_others(known: KnownValues, texts: Sequence[bytearray]) -> None:
    """Mask values whose pieces are words of the values, in their order, with anything between them."""
    pieces = list(islice(_pieces(texts), MAX_PIECES))
    joined = b"\n".join(texts[at][begin:end] for at, begin, end in pieces)
    for needle in known.whole:
        if needle[:LEAST_PIECE] in joined:
            _mask_pieces(needle, texts, pieces)


def _pieces(texts: Sequence[bytearray]) -> Iterator[Segment]:
    for each in range(0, len(texts), 2):
        for at, begin, end in _words(texts, (each, 0, len(texts[each]))):
            yield at, begin, end
            said = texts[at].find(b"=", begin, end) + 1
            if said:
                yield at, said, end


def _mask_pieces(needle: bytes, texts: Sequence[bytearray], pieces: Sequence[Segment]) -> None:
    """Mask the pieces that make a value, and all like them: an echo may stand there more than once."""
    for _ in range(MAX_CUTS):
        found = _cut(needle, [bytes(texts[at][begin:end]) for at, begin, end in pieces])
        if not found:
            return
        first, last, between = found[0], found[-1], frozenset(found[1:-1])
        for at, begin, end in pieces:
            text = bytes(texts[at][begin:end])
            if text.endswith(first):
                begin = end - len(first)
            elif text.startswith(last):
                end = begin + len(last)
            elif text not in between:
                continue
            texts[at][begin:end] = b"*" * (end - begin)


def _cut(needle: bytes, texts: Sequence[bytes]) -> list[bytes]:
    """Return the pieces in which a value stands in these texts, in their order; none where it doesn't."""
    seen: dict[int, list[bytes]] = {}  # how much of it there may be by now, and in which pieces
    for text in texts:
        for size, before in list(seen.items()):
            rest = needle[size:]
            if text.startswith(rest):
                return [*before, rest]
            if len(text) >= LEAST_PIECE and rest.startswith(text):
                seen.setdefault(size + len(text), [*before, text])
        for size in range(LEAST_PIECE, min(len(text), len(needle) - 1) + 1):
            if needle.startswith(text[-size:]):
                seen.setdefault(size, [text[-size:]])
    return []
