"""write_file: a file holds exactly this content, or is as it was before; there is nothing in between."""

from __future__ import annotations

import os
from errno import EACCES

from opsexec.far.attributes import Wanted, copy_xattrs, group_name, umask, user_name
from opsexec.far.files import BLOCK, aside_name, flag, open_regular, packed, sync_directory
from opsexec.far.match import admits_path
from opsexec.far.message import FarError, unpack_layers
from opsexec.far.walk import Place, decode, located

OLD_LIMIT = 1 << 20
"""How many bytes of the old content are answered for a diff; of a longer file, none."""

NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_file(args: list[bytes]) -> list[bytes]:
    """[path, grants, data, mode, owner, group, parents, check, readers, private] -> [changed, old content, meta].

    A link at the last name is followed, under the grants, and stays a link. `readers`: packed fs.read grants;
    the old content is answered only where they admit the place too (empty: not wanted). meta: `path`,
    `existed`, `old_size`, `old_known` (the old content is all there), `content` (it differs), `changes` of
    attributes, `made` directories. `private`: a new file is its owner's alone (0600) where no mode is named.
    """
    path, grants, data, mode, owner, group, parents, check, readers, private = args
    wanted = Wanted(mode, owner, group)
    how = "" if parents != b"1" else "pretend" if check == b"1" else "make"
    with located(decode(path), unpack_layers(grants), "fs.write", parents=how) as place:
        info = place.stat()
        old = None if info is None else _open_old(place)
        try:
            if old is not None:
                info = os.fstat(old)
            may_tell = bool(readers) and admits_path(unpack_layers(readers), place.path)
            same, body = (False, b"") if old is None else compare(old, data, tell=may_tell)
            changes = {} if info is None else wanted.changes(info)
            # Who owned it may hold it open or by another name, and would go on writing to what is no longer theirs.
            if check != b"1" and (not same or "owner" in changes):
                replace(place, data, wanted, info, old, 0o600 if private == b"1" else 0o644 & ~umask())
            elif check != b"1" and changes and old is not None and info is not None:
                wanted.apply(old, info)
        finally:
            if old is not None:
                os.close(old)
        size = 0 if info is None else info.st_size
        meta = {
            "path": place.path,
            "existed": info is not None,
            "old_size": size,
            "old_known": info is None or (old is not None and may_tell and size <= OLD_LIMIT),
            "content": not same,
            "changes": changes,
            "made": place.missing + place.made,
        }
        return [flag(not same or bool(changes)), body, packed(meta)]


def _open_old(place: Place) -> int | None:
    """Open the file that stands here; None when this user may not read it: it counts as different."""
    try:
        return open_regular(place)
    except OSError as error:
        if error.errno == EACCES:
            return None
        raise


def compare(fd: int, data: bytes, tell: bool) -> tuple[bool, bytes]:
    """Return whether an open file holds exactly `data`, and its content if that may be told and is short."""
    size = os.fstat(fd).st_size
    if size > OLD_LIMIT or not tell:
        if size != len(data):
            return False, b""
        at = 0
        while True:
            block = os.read(fd, BLOCK)
            if not block:
                return at == len(data), b""
            if block != data[at : at + len(block)]:
                return False, b""
            at += len(block)
    blocks = []
    left = OLD_LIMIT + 1
    while left > 0:
        block = os.read(fd, min(left, BLOCK))
        if not block:
            break
        blocks.append(block)
        left -= len(block)
    body = b"".join(blocks)
    return body == data, body if left > 0 else b""


def replace(
    place: Place, data: bytes, wanted: Wanted, info: os.stat_result | None, old: int | None, fresh: int
) -> None:
    """Write beside the place and rename it in; on any error all is as it was, with nothing beside it."""
    aside = aside_name()
    fd = os.open(aside, NEW_FLAGS, 0o600, dir_fd=place.fd)
    try:
        try:
            _fill(fd, data)
            _dress(fd, wanted, info, old, fresh)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(aside, place.name, src_dir_fd=place.fd, dst_dir_fd=place.fd)
    except BaseException:  # whatever it is, nothing of ours stays beside the place
        os.unlink(aside, dir_fd=place.fd)
        raise
    sync_directory(place.fd)


def _fill(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _dress(fd: int, wanted: Wanted, info: os.stat_result | None, old: int | None, fresh: int) -> None:
    """Give the new file the attributes asked for, else those of the old file, else the mode `fresh`.

    A new owner's file has nothing of the old owner's access list: whom they let in is not the new one's word.
    """
    mine = os.fstat(fd)
    uid, gid = mine.st_uid, mine.st_gid
    mode = fresh
    if info is not None:
        # Set-id bits stood for the old content: new content has them when they are asked for, as with write(2).
        uid, gid, mode = info.st_uid, info.st_gid, info.st_mode & 0o1777
    uid = uid if wanted.uid is None else wanted.uid
    gid = gid if wanted.gid is None else wanted.gid
    mode = mode if wanted.mode is None else wanted.mode
    if old is not None:
        copy_xattrs(old, fd, access_list=info is not None and uid == info.st_uid)
    if (uid, gid) != (mine.st_uid, mine.st_gid):
        try:
            os.fchown(fd, uid, gid)
        except PermissionError as error:
            who = f"{user_name(uid)}:{group_name(gid)}"
            raise FarError("permission", f"can't give the new file to {who}: {error.strerror}", "EPERM") from error
    os.fchmod(fd, mode)
