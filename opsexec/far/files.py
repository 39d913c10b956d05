"""File operations that read or make one thing: read, stat, make a directory, link, set attributes."""

from __future__ import annotations

import os
import stat as st
from errno import EACCES, EINVAL

from opsexec.far.attributes import Wanted, group_name, kind_of, octal, user_name
from opsexec.far.message import FarError, unpack_layers
from opsexec.far.walk import Place, decode, encode, located

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Never follow a link, never wait for a fifo's writer, never gain a terminal."""

DIGEST_LIMIT = 16 << 20
"""The largest file whose sha256 `stat` works out, in bytes."""

BLOCK = 1 << 20


def read_file(args: list[bytes]) -> list[bytes]:
    """[path, grants, offset, max_bytes] -> [data, meta]; more bytes than that are the error `too_large`."""
    path, grants, offset, limit = args
    with located(decode(path), unpack_layers(grants), "fs.read") as place:
        fd = open_regular(place)
        try:
            info = os.fstat(fd)
            data = _read_from(fd, int(offset), int(limit), place)
        finally:
            os.close(fd)
    return [data, packed({"path": place.path, "size": info.st_size, "mode": octal(info.st_mode)})]


def _read_from(fd: int, offset: int, limit: int, place: Place) -> bytes:
    """Read to the end, whatever the size says: files of /proc and /sys say 0 or 4096."""
    if offset:
        os.lseek(fd, offset, os.SEEK_SET)
    blocks = []
    left = limit + 1
    while left > 0:
        block = os.read(fd, min(left, BLOCK))
        if not block:
            break
        blocks.append(block)
        left -= len(block)
    if left <= 0:
        raise FarError("too_large", f"{place.asked} is longer than {limit} bytes from offset {offset}")
    return b"".join(blocks)


def open_regular(place: Place) -> int:
    """Open a regular file for reading; raises FarError for anything else, which isn't even opened."""
    require_regular(os.stat(place.name, dir_fd=place.fd, follow_symlinks=False), place)
    fd = os.open(place.name, READ_FLAGS, dir_fd=place.fd)
    try:
        require_regular(os.fstat(fd), place)
    except BaseException:  # whatever it is, the file is closed before it is told
        os.close(fd)
        raise
    return fd


def require_regular(info: os.stat_result, place: Place) -> None:
    """Raise FarError unless this metadata is a regular file's."""
    if st.S_ISREG(info.st_mode):
        return
    if st.S_ISDIR(info.st_mode):
        raise FarError("is_directory", f"{place.asked} is a directory")
    if st.S_ISLNK(info.st_mode):
        raise FarError("raced", f"{place.asked} became a link while it was opened")
    raise FarError("not_regular", f"{place.asked} is a {kind_of(info)}, not a file")


def stat(args: list[bytes]) -> list[bytes]:
    """[path, grants, digest?] -> [json]; a missing path is `{"exists": false}`; no final link is followed.

    `digest` b"1" adds the sha256 of a regular file of at most DIGEST_LIMIT bytes that this user may read,
    else null.
    """
    path, grants = args[:2]
    try:
        with located(decode(path), unpack_layers(grants), "fs.read", follow=False) as place:
            info = place.stat()
            if info is None:
                return [packed({"exists": False})]
            answer = describe(info)
            answer["path"] = place.path
            answer["target"] = decode(read_link(place)) if st.S_ISLNK(info.st_mode) else None
            if args[2:] == [b"1"]:
                answer["sha256"] = _digest(place, info)
    except (FileNotFoundError, NotADirectoryError):
        return [packed({"exists": False})]
    except FarError as error:
        if error.code == "not_directory":
            return [packed({"exists": False})]
        raise
    return [packed(answer)]


def describe(info: os.stat_result) -> dict[str, Any]:
    """Return metadata as JSON data: sizes in bytes, `mtime` in seconds since 1970."""
    return {
        "exists": True,
        "kind": kind_of(info),
        "size": info.st_size,
        "mode": octal(info.st_mode),
        "owner": user_name(info.st_uid),
        "group": group_name(info.st_gid),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "mtime": info.st_mtime,
    }


def read_link(place: Place) -> bytes:
    """Return what the link at a place holds; raises `raced` when it is none any more."""
    try:
        return os.readlink(place.name, dir_fd=place.fd)
    except OSError as error:
        if error.errno == EINVAL:
            raise FarError("raced", f"{place.asked} was a link and is none any more") from error
        raise


def _digest(place: Place, info: os.stat_result) -> str | None:
    if not st.S_ISREG(info.st_mode) or info.st_size > DIGEST_LIMIT:
        return None
    import hashlib

    try:
        fd = open_regular(place)
    except OSError as error:
        if error.errno == EACCES:
            return None
        raise
    try:
        digest = hashlib.sha256()
        left = DIGEST_LIMIT + 1
        while left > 0:
            block = os.read(fd, min(left, BLOCK))
            if not block:
                return digest.hexdigest()
            digest.update(block)
            left -= len(block)
        return None
    finally:
        os.close(fd)


def make_dir(args: list[bytes]) -> list[bytes]:
    """[path, grants, mode, owner, group, parents, check] -> [changed, meta with `made` and `changes`]."""
    path, grants, mode, owner, group, parents, check = args
    wanted = Wanted(mode, owner, group)
    how = "" if parents != b"1" else "pretend" if check == b"1" else "make"
    with located(decode(path), unpack_layers(grants), "fs.write", parents=how) as place:
        info = place.stat()
        made = place.missing + place.made
        changes: dict[str, list[str]] = {}
        if info is None:
            made = [*made, place.path]
            if check != b"1":
                os.mkdir(place.name, 0o755 if wanted.mode is None else 0o700, dir_fd=place.fd)
                _settle_directory(place, wanted)
        elif not st.S_ISDIR(info.st_mode):
            raise FarError("exists", f"{place.asked} exists and is a {kind_of(info)}, not a directory")
        else:
            changes = wanted.changes(info)
            if changes and check != b"1":
                _settle_directory(place, wanted)
        return [flag(bool(made or changes)), packed({"path": place.path, "made": made, "changes": changes})]


def _settle_directory(place: Place, wanted: Wanted) -> None:
    """Apply attributes to the directory that stands here now, and make its entry survive a power loss."""
    info = os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
    if not st.S_ISDIR(info.st_mode):
        raise FarError("raced", f"{place.asked} became a {kind_of(info)} while it was made")
    wanted.apply_at(place.name, place.fd, info)
    sync_directory(place.fd)


def link(args: list[bytes]) -> list[bytes]:
    """[path, grants, target, check] -> [changed, meta]; only another link is replaced, in one rename."""
    path, grants, target, check = args
    with located(decode(path), unpack_layers(grants), "fs.write", follow=False) as place:
        info = place.stat()
        before = None
        if info is not None:
            if not st.S_ISLNK(info.st_mode):
                raise FarError("exists", f"{place.asked} exists and is a {kind_of(info)}, not a link")
            before = read_link(place)
        meta = packed({"path": place.path, "target": [None if before is None else decode(before), decode(target)]})
        if before == target:
            return [b"0", meta]
        if check != b"1":
            _put_link(place, target, replace=before is not None)
        return [b"1", meta]


def _put_link(place: Place, target: bytes, replace: bool) -> None:
    if not replace:
        os.symlink(target, place.name, dir_fd=place.fd)
        sync_directory(place.fd)
        return
    aside = aside_name()
    os.symlink(target, aside, dir_fd=place.fd)
    try:
        os.rename(aside, place.name, src_dir_fd=place.fd, dst_dir_fd=place.fd)
    except BaseException:  # whatever it is, nothing of ours stays beside the place
        os.unlink(aside, dir_fd=place.fd)
        raise
    sync_directory(place.fd)


def set_mode(args: list[bytes]) -> list[bytes]:
    """[path, grants, mode, owner, group, check] -> [changed, meta]; a link has only owner and group."""
    path, grants, mode, owner, group, check = args
    wanted = Wanted(mode, owner, group)
    with located(decode(path), unpack_layers(grants), "fs.write", follow=False) as place:
        info = os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
        if st.S_ISLNK(info.st_mode) and wanted.mode is not None:
            raise FarError("is_link", f"{place.asked} is a link, and a link has no mode of its own")
        changes = wanted.changes(info)
        if changes and check != b"1":
            wanted.apply_at(place.name, place.fd, info)
        return [flag(bool(changes)), packed({"path": place.path, "changes": changes})]


def flag(value: bool) -> bytes:
    """Return a yes or no as it crosses."""
    return b"1" if value else b"0"


def packed(value: dict[str, Any]) -> bytes:
    """Return JSON data as it crosses; bytes of a path that are not UTF-8 are escaped."""
    import json

    return json.dumps(value).encode("ascii")


def aside_name() -> bytes:
    """Return a name that nobody can guess, for what is made beside its place and then renamed into it."""
    return encode(f".opsexec-{os.urandom(12).hex()}")


def sync_directory(fd: int) -> None:
    """Make a directory's entries survive a power loss, where this user may open it for reading at all."""
    try:
        readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    except PermissionError:
        return  # write permission without read: the entry is made, only its flush can't be asked for
    try:
        os.fsync(readable)
    finally:
        os.close(readable)
