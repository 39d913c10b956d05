"""remove: one entry, or a tree, by directory descriptors; no link followed, no file system crossed."""

from __future__ import annotations

import os
import stat as st

from opsexec.far.attributes import kind_of
from opsexec.far.files import flag, packed, sync_directory
from opsexec.far.match import path_matches
from opsexec.far.message import FarError, unpack_layers
from opsexec.far.walk import Place, decode, denial, located

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH = 64
"""How many directories are held open at once; a deeper one is first moved up to the top of its tree."""

LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(args: list[bytes]) -> list[bytes]:
    """[path, grants, recursive, check] -> [changed, meta]; missing is as wanted, a link goes itself."""
    path, grants, recursive, check = args
    layers = unpack_layers(grants)
    try:
        with located(decode(path), layers, "fs.remove", follow=False) as place:
            info = place.stat()
            if info is None:
                return _answer(place, None)
            if place.path == "/":
                raise FarError("bad_request", "refusing to remove /")
            if not st.S_ISDIR(info.st_mode):
                if check != b"1":
                    os.unlink(place.name, dir_fd=place.fd)
            elif recursive == b"1":
                require_below(place, layers)
                if check != b"1":
                    _Tree(place).remove()
            elif check != b"1":
                os.rmdir(place.name, dir_fd=place.fd)
            elif not _is_empty(place):
                raise FarError("not_empty", f"{place.asked} is a directory that is not empty")
            if check != b"1":
                sync_directory(place.fd)
            return _answer(place, info)
    except (FileNotFoundError, NotADirectoryError):
        return [b"0", packed({"path": None, "kind": None})]
    except FarError as error:
        if error.code == "not_directory":
            return [b"0", packed({"path": None, "kind": None})]
        raise


def _answer(place: Place, info: os.stat_result | None) -> list[bytes]:
    kind = None if info is None else kind_of(info)
    return [flag(info is not None), packed({"path": place.path, "kind": kind})]


def _is_empty(place: Place) -> bool:
    fd = os.open(place.name, LIST_FLAGS, dir_fd=place.fd)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is None
    finally:
        os.close(fd)


def require_below(place: Place, layers: Sequence[Sequence[str]]) -> None:
    """Raise `denied` unless, in every layer, one grant admits this place and all that may stand below it.

    Asked with names that nobody could have granted, one and many levels down, so that only `**` answers yes.
    """
    name = os.urandom(16).hex()
    probes = (place.path, f"{place.path}/{name}", place.path + f"/{name}" * 48)
    for layer in layers:
        if not any(all(path_matches(pattern, probe) for probe in probes) for pattern in layer):
            raise denial(
                "fs.remove", f"{place.path}/**", layers, f"removing the tree {place.path} takes all below it"
            )


class _Tree:
    """One directory tree that goes. `stack`: the directories walked into, each open, top first."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.device = -1
        self.stack: list[tuple[int, bytes, list[bytes]]] = []

    def remove(self) -> None:
        try:
            self._enter(self.place.fd, self.place.name)
            self.device = os.fstat(self.stack[0][0]).st_dev
            while self.stack:
                self._step()
        finally:
            for fd, _, _ in self.stack:
                os.close(fd)

    def _step(self) -> None:
        """Remove one entry of the deepest open directory, walk into it, or leave when none is left."""
        fd, name, entries = self.stack[-1]
        if not entries:
            above = self.stack[-2][0] if len(self.stack) > 1 else self.place.fd
            self.stack.pop()
            os.close(fd)
            os.rmdir(name, dir_fd=above)
            return
        entry = entries.pop()
        try:
            info = os.stat(entry, dir_fd=fd, follow_symlinks=False)
            if not st.S_ISDIR(info.st_mode):
                os.unlink(entry, dir_fd=fd)
            elif info.st_dev != self.device:
                raise FarError(
                    "mount", f"{decode(entry)} in {self.place.asked} is another file system; unmount it first"
                )
            elif len(self.stack) < MAX_DEPTH:
                self._enter(fd, entry)
            else:
                self._lift(fd, entry)
        except FileNotFoundError:
            return  # someone else removed it meanwhile: as wanted

    def _enter(self, fd: int, name: bytes) -> None:
        inner = os.open(name, LIST_FLAGS, dir_fd=fd)
        try:
            with os.scandir(inner) as entries:
                names = [os.fsencode(entry.name) for entry in entries]
        except BaseException:
            os.close(inner)
            raise
        self.stack.append((inner, name, names))

    def _lift(self, fd: int, entry: bytes) -> None:
        """Move a directory up to the top of the tree and remove it there: any depth, few descriptors."""
        top, _, entries = self.stack[0]
        aside = b".opsexec-%s" % os.urandom(12).hex().encode()
        os.rename(entry, aside, src_dir_fd=fd, dst_dir_fd=top)
        entries.append(aside)
