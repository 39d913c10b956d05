"""A known value in a whole text: as it stands, and in what the text is once encodings and packings are taken off it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from bottle.sidecars.egress import archives
from bottle.sidecars.egress.encodings import Unreadable
from opsexec.far import git_views
from opsexec.far.known_values import KnownValues

MAX_DEPTH = 4
MAX_ESCAPED = 10
VIEWED_BYTES = 24 << 20
"""How much is looked at for one text, with everything that comes out of it. What is beyond that isn't looked into."""

UNPACKED_BYTES = 16 << 20
_PARAMETERS = re.compile(rb"[?&;\s](?:[^=&;\s]*=|(?<!\?)[&;\s]*)")

SHORTEST_RUN = 14
"""A run of fewer characters encodes nothing that would be looked for."""


def find(known: KnownValues, data: bytes, depth: int = MAX_DEPTH, unread: list[str] | None = None) -> str | None:
    """Return the name of a value that stands in `data`, within `depth` layers of encoding or packing; None for none.

    `unread` gets what is packed in a layer of it and can't be read.
    """
    if not known or not data:
        return None
    left = VIEWED_BYTES
    seen: set[bytes] = set()
    pending = [(data, 0)]
    while pending:
        text, layer = pending.pop()
        left -= len(text)
        if text in seen or left < 0:
            continue
        seen.add(text)
        name = known.find(text) or known.find_scattered(text)
        if name is not None:
            return name
        if layer and unread is not None and archives.begins(text):
            try:
                read_whole(known, text, strict=False)
            except archives.Holds as error:
                return error.name
            except Unreadable as error:
                unread.append(str(error))
        if layer < depth and len(text) >= SHORTEST_RUN:
            pending += [(inner, layer + 1) for inner in _inside(text) if inner and inner != text]
    return None


def read_whole(known: KnownValues, body: bytes, *, strict: bool = True) -> None:
    """Read what a body packs, to its end; raises archives.Holds, and Unreadable for what can't be read."""
    unpacking = archives.Unpacking(known, find, strict=strict)
    unpacking.feed(body)
    unpacking.feed(b"")


def find_in_body(known: KnownValues, body: bytes) -> str | None:
    """Return the name of a value in a whole body; raises Unreadable where there may be one and nobody can tell."""
    if not known:
        return None
    unread: list[str] = []
    found = find(known, body, unread=unread)
    if found is not None:
        return found
    try:
        read_whole(known, body)
    except archives.Holds as error:
        return error.name
    if unread:
        raise Unreadable(unread[0])
    return None


def _inside(text: bytes) -> Iterator[bytes]:
    if b"%" in text:
        plain = text
        for _ in range(MAX_ESCAPED):
            again = unquote_to_bytes(plain)
            if again == plain:
                break
            plain = again
        yield plain
    if b"&" in text and b"=" in text:
        yield _PARAMETERS.sub(b" ", text)  # what is cut over the values of a query or a form
    yield git_views.plain(text)
    yield from git_views.decoded(git_views.text_of(text))
    yield from _unpacked(text)


def _unpacked(text: bytes) -> Iterator[bytes]:
    """Yield what archives and compressed streams in it hold, as far as that can be read within bounds."""
    from opsexec.far.git_archives import Budget, members
    from opsexec.far.git_run import Refused

    try:
        for name, content in members(text, Budget(UNPACKED_BYTES, UNPACKED_BYTES // 2), strict=False):
            yield name.encode("utf-8", "surrogateescape")
            yield content
    except Refused:
        return
