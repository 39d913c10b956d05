"""move_file: a file or link, as it is, from one place to another that is free; nothing is ever replaced."""

from __future__ import annotations

import os
import stat as st
from errno import EINVAL, ENOSYS, EXDEV

from opsexec.far.attributes import copy_xattrs, kind_of
from opsexec.far.files import BLOCK, aside_name, flag, open_regular, packed, read_link, sync_directory
from opsexec.far.match import admits_path
from opsexec.far.message import FarError, unpack_layers
from opsexec.far.walk import Place, decode, denial, located
from opsexec.far.wanted import require_wanted
from opsexec.far.writing import NEW_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NOREPLACE = 1
"""RENAME_NOREPLACE of renameat2(2)."""


def move_file(args: list[bytes]) -> list[bytes]:
    """[path, removers, readers, to, writers, check] -> [changed, meta]; grants of fs.remove, fs.read and fs.write.

    Nothing at `path` while something stands at `to` is as wanted: it was moved already.
    """
    path, removers, readers, to, writers, check = args
    with located(decode(to), unpack_layers(writers), "fs.write", follow=False) as there:
        taken = there.stat()
        meta = {"path": None, "to": there.path, "kind": None}
        try:
            with located(decode(path), unpack_layers(removers), "fs.remove", follow=False) as here:
                _require_read(here, unpack_layers(readers))
                info = here.stat()
                if info is not None:
                    _require_movable(here, info)
                    _require_free(here, info, there, taken)
                    if check != b"1":
                        _move(here, info, there, taken is not None)
                    return [b"1", packed({**meta, "path": here.path, "kind": kind_of(info)})]
                missing = here.asked
        except FileNotFoundError:
            missing = decode(path)
        if taken is None:
            raise FarError("not_found", f"there is neither {missing} nor {there.asked}")
        return [flag(False), packed(meta)]


def _require_read(here: Place, layers: Sequence[Sequence[str]]) -> None:
    """A moved file is read under the grants of its new place: whoever moves it has to hold those of its old one."""
    for path in (here.asked, here.path):
        if not admits_path(layers, path):
            raise denial("fs.read", path, layers, "not granted")


def _require_movable(here: Place, info: os.stat_result) -> None:
    if st.S_ISDIR(info.st_mode):
        raise FarError("is_directory", f"{here.asked} is a directory")
    if not (st.S_ISREG(info.st_mode) or st.S_ISLNK(info.st_mode)):
        raise FarError("not_regular", f"{here.asked} is a {kind_of(info)}, neither file nor link")


def _require_free(here: Place, info: os.stat_result, there: Place, taken: os.stat_result | None) -> None:
    """Two names of one file are half a move, which goes on; anything else at the new place stays."""
    if taken is not None and (here.path == there.path or not _same(info, taken)):
        raise FarError("exists", f"{there.asked} exists and is a {kind_of(taken)}: nothing is moved over it")


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _move(here: Place, info: os.stat_result, there: Place, half: bool) -> None:
    try:
        if half:
            _drop(here, info)
        else:
            _rename(here.fd, here.name, there.fd, there.name)
            _settle(here, info, there)
    except OSError as error:
        if error.errno != EXDEV:
            raise
        _copy(here, info, there)
    sync_directory(there.fd)
    sync_directory(here.fd)


def _rename(here: int, name: bytes, there: int, to: bytes) -> None:
    """Rename where nothing stands; without renameat2(2) by a second name, of which the first then goes."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc has it since 2.28, macOS never
    if call is not None:
        if call(here, name, there, to, NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (ENOSYS, EINVAL):  # EINVAL: this file system doesn't know the flag
            raise OSError(number, os.strerror(number))
    os.link(name, to, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
    os.unlink(name, dir_fd=here)


def _settle(here: Place, info: os.stat_result, there: Place) -> None:
    """Undo a move of what took the file's place after it was looked at, such as a directory."""
    moved = there.stat()
    if moved is None or _same(moved, info):
        return
    _rename(there.fd, there.name, here.fd, here.name)
    raise FarError("raced", f"{here.asked} became another file while it was moved")


def _drop(here: Place, info: os.stat_result) -> None:
    """Remove the old name, unless it is another file's by now."""
    now = here.stat()
    if now is None or not _same(now, info) or (now.st_size, now.st_mtime_ns) != (info.st_size, info.st_mtime_ns):
        raise FarError("raced", f"{here.asked} changed while it was moved")
    os.unlink(here.name, dir_fd=here.fd)


def _copy(here: Place, info: os.stat_result, there: Place) -> None:
    """Move to another file system: a copy with all attributes, flushed and put in place, then the original goes."""
    aside = aside_name()
    if st.S_ISLNK(info.st_mode):
        os.symlink(read_link(here), aside, dir_fd=there.fd)
    else:
        _copy_file(here, info, there, aside)
    try:
        if st.S_ISLNK(info.st_mode):
            os.chown(aside, info.st_uid, info.st_gid, dir_fd=there.fd, follow_symlinks=False)
        _rename(there.fd, aside, there.fd, there.name)
    except BaseException:  # whatever it is, nothing of ours stays beside the place
        os.unlink(aside, dir_fd=there.fd)
        raise
    sync_directory(there.fd)
    try:
        _drop(here, info)
    except BaseException:  # what could not be taken away stands once, where it was
        os.unlink(there.name, dir_fd=there.fd)
        raise


def _copy_file(here: Place, info: os.stat_result, there: Place, aside: bytes) -> None:
    old = open_regular(here)
    try:
        opened = os.fstat(old)
        if not _same(opened, info):
            raise FarError("raced", f"{here.asked} became another file while it was moved")
        info = opened  # a new file may have got the number of one that went, and is not to get its owner and mode
        new = os.open(aside, NEW_FLAGS, 0o600, dir_fd=there.fd)
        try:
            while True:
                require_wanted()
                view = memoryview(os.read(old, BLOCK))
                if not view:
                    break
                while view:
                    view = view[os.write(new, view) :]
            copy_xattrs(old, new)
            if (info.st_uid, info.st_gid) != (os.fstat(new).st_uid, os.fstat(new).st_gid):
                os.fchown(new, info.st_uid, info.st_gid)
            os.fchmod(new, info.st_mode & 0o7777)
            os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
            os.fsync(new)
        except BaseException:  # whatever it is, no half of a copy stays
            os.unlink(aside, dir_fd=there.fd)
            raise
        finally:
            os.close(new)
    finally:
        os.close(old)
