"""remove: one entry, or a tree, by directory descriptors; no link followed, no mount crossed."""

from __future__ import annotations

import os
import stat as st
from errno import EISDIR, ELOOP, ENOTDIR, ENOTEMPTY

from opsexec.far.attributes import kind_of
from opsexec.far.files import flag, packed, sync_directory
from opsexec.far.match import path_matches
from opsexec.far.message import FarError, unpack_layers
from opsexec.far.walk import Place, decode, denial, located
from opsexec.far.wanted import require_wanted

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
    walked = False
    try:
        with located(decode(path), layers, "fs.remove", follow=False) as place:
            walked = True
            info = place.stat()
            if info is not None:
                _remove(place, info, layers, recursive == b"1", check == b"1")
            return _answer(place, info)
    except FileNotFoundError:
        return [b"0", packed({"path": None, "kind": None})]
    except FarError as error:
        if walked or error.code != "not_directory":
            raise
        return [b"0", packed({"path": None, "kind": None})]


def _remove(place: Place, info: os.stat_result, layers: Sequence[Sequence[str]], recursive: bool, check: bool) -> None:
    if place.path == "/":
        raise FarError("bad_request", "refusing to remove /")
    if not st.S_ISDIR(info.st_mode):
        if not check:
            os.unlink(place.name, dir_fd=place.fd)
    elif recursive:
        require_below(place, layers)
        if not check:
            _Tree(place).remove()
    elif not check:
        os.rmdir(place.name, dir_fd=place.fd)
    elif not _is_empty(place):
        raise FarError("not_empty", f"{place.asked} is a directory that is not empty")
    if not check:
        sync_directory(place.fd)


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
            raise denial("fs.remove", f"{place.path}/**", layers, f"removing the tree {place.path} takes all below it")


def mount_of(fd: int) -> bytes:
    """Return which mount an open directory is on (a bind mount is one of its own); without /proc, which device."""
    told = f"/proc/self/fdinfo/{fd}"
    if os.path.exists(told):
        with open(told, "rb") as file:
            for line in file:
                if line.startswith(b"mnt_id:"):
                    return line
    return b"%d" % os.fstat(fd).st_dev


class _Tree:
    """One directory tree that goes. `stack`: the directories walked into, each open, top first."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.mount = b""
        self.tries = 64
        self.stack: list[tuple[int, bytes, list[bytes]]] = []

    def remove(self) -> None:
        try:
            self._enter(self.place.fd, self.place.name)
            while self.stack:
                require_wanted()
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
            self._leave(name, above)
            return
        entry = entries.pop()
        try:
            info = os.stat(entry, dir_fd=fd, follow_symlinks=False)
            if not st.S_ISDIR(info.st_mode):
                os.unlink(entry, dir_fd=fd)
            elif len(self.stack) < MAX_DEPTH:
                self._enter(fd, entry)
            else:
                self._lift(fd, entry)
        except FileNotFoundError:
            return  # someone else removed it meanwhile: as wanted
        except OSError as error:
            # A directory became a link, or the other way round, since it was looked at.
            if error.errno not in (EISDIR, ELOOP, ENOTDIR) or not self.tries:
                raise
            self.tries -= 1
            entries.append(entry)

    def _leave(self, name: bytes, above: int) -> None:
        """Remove a directory that was emptied; the top one is then gone, whoever else took part."""
        try:
            os.rmdir(name, dir_fd=above)
        except FileNotFoundError:
            return  # moved or removed by someone else meanwhile
        except OSError as error:
            # Something was put into it, or it was swapped, meanwhile: it is looked at again.
            if error.errno not in (ENOTEMPTY, ENOTDIR) or not self.stack or not self.tries:
                raise
            self.tries -= 1
            self.stack[-1][2].append(name)

    def _enter(self, fd: int, name: bytes) -> None:
        inner = os.open(name, LIST_FLAGS, dir_fd=fd)
        try:
            mount = mount_of(inner)
            if self.stack and mount != self.mount:
                raise FarError("mount", f"{decode(name)} in {self.place.asked} is a mount; unmount it first")
            self.mount = mount
            with os.scandir(inner) as entries:
                names = [os.fsencode(entry.name) for entry in entries]
        except BaseException:  # it is on no stack yet that would close it
            os.close(inner)
            raise
        self.stack.append((inner, name, names))

    def _lift(self, fd: int, entry: bytes) -> None:
        """Move a directory up to the top of the tree and remove it there: any depth, few descriptors."""
        top, _, entries = self.stack[0]
        aside = b".opsexec-%s" % os.urandom(12).hex().encode()
        os.rename(entry, aside, src_dir_fd=fd, dst_dir_fd=top)
        entries.append(aside)
