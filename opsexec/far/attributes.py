"""Mode, owner and group of a file: read, compared, applied through an open descriptor."""

from __future__ import annotations

import os
import stat

from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}

ACCESS_LIST = "system.posix_acl_access"
KEPT_XATTRS = (ACCESS_LIST, "security.selinux")
"""Extended attributes a replaced file keeps, beside `user.*`: they decide who may read it."""

LAST_ID = (1 << 32) - 2
"""The greatest number of a user or group: to chown(2), the one above it says "leave as it is"."""


def kind_of(info: os.stat_result) -> str:
    """Return what a path is: file, directory, link, fifo, socket or device."""
    return KINDS.get(stat.S_IFMT(info.st_mode), "unknown")


def octal(mode: int) -> str:
    """Return a mode as people write it, like "0644"."""
    return f"{stat.S_IMODE(mode):04o}"


def user_name(uid: int) -> str:
    """Return the name of a uid, or its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return the name of a gid, or its number where it has none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _number(name: bytes, what: str, look_up: Callable[[str], int]) -> int | None:
    if not name:
        return None
    text = name.decode("utf-8", "replace")
    try:
        return look_up(text)
    except KeyError:
        if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= LAST_ID:
            return int(text)
        raise FarError("no_such_user", f"no {what} {text!r} on this host") from None


class Wanted:
    """The attributes a step asks for; None = leave as it is."""

    __slots__ = ("gid", "mode", "uid")

    def __init__(self, mode: bytes, owner: bytes, group: bytes) -> None:
        import grp
        import pwd

        try:
            self.mode = int(mode, 8) if mode else None
        except ValueError as error:
            raise FarError("bad_request", f"mode {mode!r} is not octal") from error
        self.uid = _number(owner, "user", lambda name: pwd.getpwnam(name).pw_uid)
        self.gid = _number(group, "group", lambda name: grp.getgrnam(name).gr_gid)

    def changes(self, info: os.stat_result) -> dict[str, list[str]]:
        """Return what would change on a file with this metadata, as {"mode": ["0644", "0600"], ...}."""
        found: dict[str, list[str]] = {}
        if self.mode is not None and self.mode != stat.S_IMODE(info.st_mode):
            found["mode"] = [octal(info.st_mode), octal(self.mode)]
        if self.uid is not None and self.uid != info.st_uid:
            found["owner"] = [user_name(info.st_uid), user_name(self.uid)]
        if self.gid is not None and self.gid != info.st_gid:
            found["group"] = [group_name(info.st_gid), group_name(self.gid)]
        return found

    def apply(self, fd: int, info: os.stat_result) -> None:
        """Apply to an open file or directory with this metadata, touching only what differs."""
        uid = -1 if self.uid is None or self.uid == info.st_uid else self.uid
        gid = -1 if self.gid is None or self.gid == info.st_gid else self.gid
        if (uid, gid) != (-1, -1):
            os.fchown(fd, uid, gid)
        # A chown clears the set-id bits, so a wanted mode is put on again after it.
        if self.mode is not None and (self.mode != stat.S_IMODE(info.st_mode) or (uid, gid) != (-1, -1)):
            os.fchmod(fd, self.mode)

    def apply_at(self, name: bytes, dir_fd: int, info: os.stat_result) -> None:
        """Apply to a name that may be unreadable, a link, a device or a socket; a link is never followed."""
        uid = -1 if self.uid is None or self.uid == info.st_uid else self.uid
        gid = -1 if self.gid is None or self.gid == info.st_gid else self.gid
        change_at(name, dir_fd, info, uid, gid, self.mode)


def change_at(name: bytes, dir_fd: int, info: os.stat_result, uid: int, gid: int, mode: int | None) -> None:
    """Give what this metadata is about, and stands under a name, an owner, group (-1: as it is) and mode.

    Raises FarError `raced` when something else stands there by now: who may write the directory could put a program
    of his own where a set-id mode was meant for a directory.
    """
    if mode == stat.S_IMODE(info.st_mode) and (uid, gid) == (-1, -1):
        mode = None  # a chown clears the set-id bits, so a wanted mode is put on again after it
    if not hasattr(os, "O_PATH"):
        if (uid, gid) != (-1, -1):
            os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
        if mode is not None:
            os.chmod(name, mode, dir_fd=dir_fd, follow_symlinks=False)
        return
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        now = os.fstat(fd)
        was = (info.st_dev, info.st_ino, stat.S_IFMT(info.st_mode))  # a new file may get the number of one that went
        if (now.st_dev, now.st_ino, stat.S_IFMT(now.st_mode)) != was:
            raise FarError("raced", "it became something else while its owner or mode was set")
        link = stat.S_ISLNK(now.st_mode)
        if (uid, gid) != (-1, -1):
            os.chown(b"/proc/self/fd/%d" % fd, uid, gid)  # of a link held this way, the link's own
        if mode is not None:
            if link:
                raise FarError("raced", "it became a link while its mode was set")
            os.chmod(b"/proc/self/fd/%d" % fd, mode)
    finally:
        os.close(fd)


def chmod_at(name: bytes, dir_fd: int, mode: int) -> None:
    """Set the mode of what stands under a name, and of no link there: raises FarError.

    Linux before 6.6 has no chmod that refuses links; an O_PATH descriptor and its /proc name do that (open(2)).
    """
    if not hasattr(os, "O_PATH"):
        os.chmod(name, mode, dir_fd=dir_fd, follow_symlinks=False)
        return
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise FarError("raced", "it became a link while its mode was set")
        os.chmod(b"/proc/self/fd/%d" % fd, mode)
    finally:
        os.close(fd)


def umask() -> int:
    """Return this process's umask; where /proc tells it, without a moment in which it is another one."""
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    old = os.umask(0o077)
    os.umask(old)
    return old


def copy_xattrs(source: int, target: int, *, access_list: bool = True) -> None:
    """Give a replacing file the label, user attributes and access list, if that is to stay, of the one it replaces."""
    import errno

    if not hasattr(os, "listxattr"):
        return
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        if name == ACCESS_LIST and not access_list:
            continue
        if name in KEPT_XATTRS or name.startswith("user."):
            value = os.getxattr(source, name)
            if _xattr(target, name) != value:
                os.setxattr(target, name, value)


def _xattr(fd: int, name: str) -> bytes | None:
    import errno

    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise
