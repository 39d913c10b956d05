"""A tar stream read entry by entry and written anew: what comes out can be unpacked as it is, whoever wrote the other.

Names are relative and don't climb; entries are files, directories, links that stay inside, and hard links to files that
came before; nothing is written through a link; no owner, no setuid bit, no attribute is passed on.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO, Any, Protocol, cast

from opsexec.errors import LimitExceeded, StepFailed

BLOCK = 256 << 10
MAX_NAME = 4096
MAX_HEADER = 1 << 20
"""Bytes of an entry's extended header: it is read into memory whole."""
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
END = bytes(2 * tarfile.BLOCKSIZE)


class Readable(Protocol):
    """Where a tar stream comes from."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes; none at the end."""
        ...


class _Entry(tarfile.TarInfo):
    """An entry whose extended headers are bounded, and that is not sparse: its size would be a claim."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in EXTENDED and self.size > MAX_HEADER:
            raise StepFailed(f"the tar stream has an entry header of {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise StepFailed("the tar stream holds a sparse entry")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]  # tarfile's own hook, not in its stubs

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Entry:
        """Read the next header: only a tar's own end is one (TarFile takes a stream that breaks off for ended)."""
        try:
            return super().fromtarfile(archive)
        except (tarfile.TruncatedHeaderError, tarfile.EmptyHeaderError) as error:  # type: ignore[attr-defined]  # not in its stubs
            raise StepFailed("the tar stream breaks off") from error

    def _sparse(self, *_: Any) -> None:
        raise StepFailed("the tar stream holds a sparse entry")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


class TarCheck:
    """One stream. `entries`, `size`: what has passed; `left_out`: links that lead out.

    Raises StepFailed for what is no such tar stream, LimitExceeded.
    """

    def __init__(self, max_bytes: int, max_entries: int, *, uid: int = 0, gid: int = 0) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._uid = uid
        self._gid = gid
        self._files: set[str] = set()
        self._links: set[str] = set()
        self.entries = 0
        self.size = 0
        self.left_out = 0

    def given(self, path: str, content: bytes, mode: int) -> Iterator[bytes]:
        """Yield one file as tar, with the directories it needs."""
        parts = path.split("/")
        for at in range(1, len(parts)):
            yield self._head("/".join(parts[:at]), tarfile.DIRTYPE, 0o755)
        self._count(len(content))
        yield self._head(path, tarfile.REGTYPE, mode, len(content))
        yield content + bytes(-len(content) % tarfile.BLOCKSIZE)
        self._files.add(path)

    def passed(self, source: Readable) -> Iterator[bytes]:
        """Yield a stream's entries anew, without the end of a tar: more may follow."""
        try:
            with tarfile.open(fileobj=_as_file(source), mode="r|", tarinfo=_Entry, errorlevel=2) as archive:
                for member in archive:
                    yield from self._member(member, archive)
                    archive.members = []  # type: ignore[attr-defined]  # it would keep each entry it has read
        except (tarfile.TarError, EOFError, ValueError, OverflowError, UnicodeError) as error:
            raise StepFailed(f"this is no tar stream: {str(error)[:100]}") from error

    def _member(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> Iterator[bytes]:
        name = self._name(member.name)
        if not name:
            return  # the root itself
        mode = member.mode & 0o777
        if member.isdir():
            self._count(0)
            yield self._head(name, tarfile.DIRTYPE, mode)
        elif member.issym():
            self._count(0)
            if not stays_inside(name, member.linkname):
                self.left_out += 1
                return
            self._links.add(name)
            yield self._head(name, tarfile.SYMTYPE, 0o777, target=member.linkname)
        elif member.islnk():
            self._count(0)
            target = self._checked(member.linkname)
            if target not in self._files:
                raise StepFailed(f"the tar stream links {shown(name)} to what it didn't bring")
            yield self._head(name, tarfile.LNKTYPE, mode, target=target)
        elif member.isreg():
            self._count(member.size)
            yield self._head(name, tarfile.REGTYPE, mode, member.size)
            yield from _content(member, archive)
            self._files.add(name)
        else:
            raise StepFailed(f"{shown(name)} in the tar stream is no file, directory or link")

    def _name(self, name: str) -> str:
        """Return the name of an entry, which takes the place of what had it before."""
        found = self._checked(name)
        self._links.discard(found)
        self._files.discard(found)
        return found

    def _checked(self, name: str) -> str:
        """Return a name in its one spelling; raises StepFailed for one that leads elsewhere."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name or len(name) > MAX_NAME:
            raise StepFailed(f"the tar stream names {shown(name)}, which leads out of it")
        for at in range(1, len(parts)):
            if "/".join(parts[:at]) in self._links:
                raise StepFailed(f"the tar stream writes {shown(name)} through a link")
        return "/".join(parts)

    def _count(self, size: int) -> None:
        self.entries += 1
        self.size += size
        if self.entries > self._max_entries:
            raise LimitExceeded(f"the tree has over {self._max_entries} entries", hint="raise max_entries")
        if self.size > self._max_bytes:
            raise LimitExceeded(f"the tree has over {self._max_bytes} bytes", hint="raise max_bytes")

    def _head(self, name: str, kind: bytes, mode: int, size: int = 0, target: str = "") -> bytes:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.linkname = kind, mode, size, target
        info.uid, info.gid = self._uid, self._gid
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def stays_inside(name: str, target: str) -> bool:
    """True when a link of this name, with this target, leads to a place in the tree it is in."""
    if target.startswith("/") or "\0" in target or not target or len(target) > MAX_NAME:
        return False
    place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return place != ".." and not place.startswith("../")


def _content(member: tarfile.TarInfo, archive: tarfile.TarFile) -> Iterator[bytes]:
    file = archive.extractfile(member)
    assert file is not None
    left = member.size
    while left:
        data = file.read(min(left, BLOCK))
        if not data:
            raise StepFailed(f"the tar stream breaks off in {shown(member.name)}")
        left -= len(data)
        yield data
    yield bytes(-member.size % tarfile.BLOCKSIZE)


def _as_file(source: Readable) -> IO[bytes]:
    return cast("IO[bytes]", source)  # a tar stream is only read


def shown(name: str) -> str:
    """Return a name as an error may show it."""
    return repr(name[:120])
