"""One entry of a tree that is copied: what the sending side says about it, and how that crosses.

Names are bytes, relative to what is copied, with single slashes; `.` is the copied directory itself.
"""

from __future__ import annotations

import stat
from struct import Struct, error

from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, DIRECTORY, LINK = 1, 2, 3
KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK}
HEAD = Struct(">BHIIQqHH")
MAX_ENTRIES = 1000000
MAX_NAMES = 256 << 20
"""Bytes of all names and targets of one list together; the receiving end holds them all."""
MAX_NAME = 4095
"""Linux's PATH_MAX without its NUL; one name takes at most 255 bytes (limits.h)."""
MAX_DEPTH = 200
"""How many directories lie above one another; each is held open while what is in it is copied."""


class Entry:
    """A file, directory or symbolic link. `mtime`: nanoseconds since 1970; `target`: of a link; `size`: bytes."""

    __slots__ = ("gid", "kind", "mode", "mtime", "name", "size", "target", "uid")

    def __init__(
        self, name: bytes, kind: int, mode: int, uid: int, gid: int, size: int, mtime: int, target: bytes = b""
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime = mtime
        self.target = target

    @property
    def parent(self) -> bytes:
        """The directory that holds it; empty for what stands at the top."""
        return self.name.rpartition(b"/")[0]

    @property
    def base(self) -> bytes:
        """Its last name."""
        return self.name.rpartition(b"/")[2]

    def pack(self) -> bytes:
        """Return the wire form."""
        head = HEAD.pack(
            self.kind, self.mode, self.uid, self.gid, self.size, self.mtime, len(self.name), len(self.target)
        )
        return head + self.name + self.target


def unpack_entries(data: bytes) -> Iterator[Entry]:
    """Yield the entries that were packed one after another; raises FarError when the data is something else."""
    at = 0
    while at < len(data):
        try:
            kind, mode, uid, gid, size, mtime, name, target = HEAD.unpack_from(data, at)
        except error:
            raise FarError("protocol", "the list of entries ends inside an entry") from None
        at += HEAD.size
        if at + name + target > len(data):
            raise FarError("protocol", "the list of entries ends inside a name")
        yield Entry(
            data[at : at + name], kind, mode & 0o7777, uid, gid, size, mtime, data[at + name : at + name + target]
        )
        at += name + target


class Acceptance:
    """What a list of entries from a side that isn't trusted must keep to; directories come before what is in them."""

    def __init__(self, only: bytes = b"") -> None:
        self.only = only
        self.seen = set()  # type: set[bytes]
        self.directories = {b""}
        self._room = MAX_NAMES

    def check(self, entry: Entry) -> None:
        """Raise FarError `protocol` for a name that is unsafe or was not asked for."""
        name = entry.name
        if name == b".":
            wrong = "" if not self.seen and not self.only and entry.kind == DIRECTORY else "is not the first"
        else:
            wrong = self._wrong(name)
        if not wrong and entry.kind not in (FILE, DIRECTORY, LINK):
            wrong = "is no file, directory or link"
        if not wrong and (entry.kind == LINK) != bool(entry.target):
            wrong = "has a target that doesn't fit"
        if not wrong and (b"\0" in entry.target or len(entry.target) > MAX_NAME):
            wrong = "has a malformed target"
        if wrong:
            raise FarError("protocol", f"the sending side's entry {name[:200].decode('utf-8', 'replace')!r} {wrong}")
        self.seen.add(name)
        if entry.kind == DIRECTORY:
            self.directories.add(name)
        self._room -= len(name) + len(entry.target)
        if len(self.seen) > MAX_ENTRIES:
            raise FarError("too_many", f"more than {MAX_ENTRIES} entries")
        if self._room < 0:
            raise FarError("too_many", f"more than {MAX_NAMES >> 20} MiB of names")

    def _wrong(self, name: bytes) -> str:
        parts = name.split(b"/")
        plain = all(part not in (b"", b".", b"..") and len(part) <= 255 for part in parts)
        if not plain or b"\0" in name or len(name) > MAX_NAME:
            return "is not a plain relative name"
        if len(parts) > MAX_DEPTH:
            return "is too deep"
        if self.only and parts[0] != self.only:
            return "was not asked for"
        if name in self.seen:
            return "comes twice"
        if name.rpartition(b"/")[0] not in self.directories:
            return "comes without its directory"
        return ""


def unsafe_link(name: bytes, target: bytes) -> bool:
    """True when a link leads out of what is copied: absolute, or more `..` than it has directories above it.

    As rsync's --safe-links since 3.4 (util1.c, unsafe_symlink): a `..` after a name, or at the end, isn't trusted.
    """
    if not target or target.startswith(b"/") or target.endswith(b"/.."):
        return True
    depth = 0 if name == b"." else name.count(b"/")
    below = False
    for part in target.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            below = True
        elif below or depth == 0:
            return True
        else:
            depth -= 1
    return False
