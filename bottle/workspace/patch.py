"""Changes as a patch that `git apply` takes (git-apply(1), gitdiffcore(7)); also `patch -p1`, but for binary files."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib

from bottle.workspace.changes import Change
from bottle.workspace.lines import Effort, unified
from bottle.workspace.tree import Entry

MAX_LINE = 8192
"""Bytes of a line of text; a file with longer ones is shown as binary."""

_PLAIN = re.compile(rb'[^\x00-\x1f\x7f-\xff"\\]*\Z')
_ESCAPES = {0x07: b"a", 0x08: b"b", 0x09: b"t", 0x0A: b"n", 0x0B: b"v", 0x0C: b"f", 0x0D: b"r", 0x22: b'"', 0x5C: b"\\"}
NOTHING = b"0" * 40


def as_bytes(path: str) -> bytes:
    """Return a path as it is on disk."""
    return path.encode("utf-8", "surrogateescape")


def quoted(name: bytes) -> bytes:
    """Return a path as git writes it: between quotes, with escapes, where it holds anything unusual."""
    if _PLAIN.match(name):
        return name
    return b'"' + b"".join(_escaped(byte) for byte in name) + b'"'


def _escaped(byte: int) -> bytes:
    if byte in _ESCAPES:
        return b"\\" + _ESCAPES[byte]
    return bytes([byte]) if 0x20 <= byte < 0x7F else b"\\%03o" % byte


def mode_of(entry: Entry) -> bytes:
    """Return the mode git keeps: a link, or a file that may be run or not."""
    return b"120000" if entry.kind == "link" else b"100755" if entry.executable else b"100644"


def blob_id(data: bytes) -> bytes:
    """Return the id git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest().encode()


def is_text(data: bytes) -> bool:
    """True when a person can read it as lines."""
    return b"\0" not in data and (len(data) <= MAX_LINE or max(map(len, data.split(b"\n"))) <= MAX_LINE)


def patch_of(change: Change, old: bytes, new: bytes, effort: Effort | None = None) -> bytes:
    """Return one change. `old`, `new`: the contents, a link's being its target, empty where there is none.

    `effort`: what is left for looking which lines differ; without any, all of them give way.
    """
    if change.old is not None and change.new is not None and change.old.kind != change.new.kind:
        # git says a change of kind as a removal and an addition.
        gone = patch_of(Change(change.path, change.old, None), old, b"")
        return gone + patch_of(Change(change.path, None, change.new), b"", new)
    name = as_bytes(change.path)
    a, b = quoted(b"a/" + name), quoted(b"b/" + name)
    told = [b"diff --git %s %s\n" % (a, b)]
    before, after = change.old, change.new
    shared = b""
    if before is None:
        assert after is not None
        told.append(b"new file mode %s\n" % mode_of(after))
    elif after is None:
        told.append(b"deleted file mode %s\n" % mode_of(before))
    elif mode_of(before) != mode_of(after):
        told += [b"old mode %s\n" % mode_of(before), b"new mode %s\n" % mode_of(after)]
    else:
        shared = b" " + mode_of(after)
    if before is not None and after is not None and old == new:
        return b"".join(told) if len(told) > 1 else b""
    ids = (NOTHING if before is None else blob_id(old), NOTHING if after is None else blob_id(new))
    told.append(b"index %s..%s%s\n" % (*ids, shared))
    if not (is_text(old) and is_text(new)):
        told.append(b"GIT binary patch\n" + _literal(new) + _literal(old))
        return b"".join(told)
    hunks = unified(old, new, effort)
    if hunks:
        # A name with a space ends in a tab there, or `patch` would take its end for a date.
        end = b"\t\n" if b" " in name else b"\n"
        told.append(b"--- %s%s" % (b"/dev/null" if before is None else a, b"\n" if before is None else end))
        told.append(b"+++ %s%s" % (b"/dev/null" if after is None else b, b"\n" if after is None else end))
    return b"".join([*told, *hunks])


def _literal(data: bytes) -> bytes:
    """Return a content as git's binary patches hold one: up to 52 bytes a line in base 85, with their number."""
    packed = zlib.compress(data, 9)
    told = [b"literal %d\n" % len(data)]
    for at in range(0, len(packed), 52):
        part = packed[at : at + 52]
        length = len(part) + 64 if len(part) <= 26 else len(part) + 70
        told.append(bytes([length]) + base64.b85encode(part, pad=True) + b"\n")
    return b"".join([*told, b"\n"])
