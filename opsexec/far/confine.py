"""Holding a program to one directory by the kernel, whatever links appear under it while it works.

Landlock (Linux 5.13, landlock(7)) decides what may be opened, made, renamed and removed. It doesn't decide about chmod,
chown and utimes, so a root that receives also gets a mount namespace (mount_setattr(2), Linux 5.12) in which only that
directory can be written at all. Where a part is missing, `confine` says so and has changed nothing that matters: the
caller then copies by our own hands, which need no such help.
"""

from __future__ import annotations

import os
from struct import pack

from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

MACHINES = frozenset(("x86_64", "i686", "i386", "aarch64", "armv7l", "armv6l", "riscv64", "ppc64le", "s390x"))
"""Where the system call numbers below hold: they are the same on every architecture but alpha."""
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
"""All file rights by Landlock's version; later ones add none that a copy could misuse."""
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14
READING = EXECUTE | READ_FILE | READ_DIR

PROGRAM_PLACES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
PROGRAM_FILES = (
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group",
    "/var/lib/sss", "/var/lib/extrausers", "/run/systemd/userdb", "/dev/urandom", "/dev/random",
)  # fmt: skip
"""What a program must read to start and to turn user names into numbers."""

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_FROM_EMPTY = 1, 0x04
_CLONE_NEWNS, _RDONLY, _MS_PRIVATE = 0x20000, 1, 1 << 18
_NO_NEW_PRIVS = 38


def confine(place: int | None, *, writes: bool, mounts: bool) -> None:
    """Let this process, and all it becomes, reach nothing but the directory or file open as `place`, and programs.

    None: programs alone. `writes`: it may also change what is there. `mounts`: nothing else can be written, not even
    modes and times (needs root); the working directory is then that directory. Raises FarError `unconfined` where the
    kernel can't.
    """
    libc = _libc()
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        raise FarError("unconfined", "the host's kernel has no Landlock")
    rights = RIGHTS[min(version, 3)]
    if mounts and place is not None:
        place = _write_nowhere_else(libc, place)
    rules = _call(libc, "landlock_create_ruleset", LANDLOCK_CREATE, pack("=Q", rights), 8, 0)
    if place is not None:
        _allow(libc, rules, place, rights if writes else rights & (READ_FILE | READ_DIR))
    for path in PROGRAM_PLACES + PROGRAM_FILES:
        _allow_path(libc, rules, path, READING)
    _allow_path(libc, rules, "/dev/null", READ_FILE | WRITE_FILE)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise FarError("unconfined", "the host's kernel can't drop privileges for good")
    _call(libc, "landlock_restrict_self", LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def _libc() -> CDLL:
    if os.uname().machine not in MACHINES or os.uname().sysname != "Linux":
        raise FarError("unconfined", "the host is no Linux of a known architecture")
    try:
        import ctypes
    except ImportError:
        raise FarError("unconfined", "the host's python3 has no ctypes") from None
    return ctypes.CDLL(None, use_errno=True)


def _call(libc: CDLL, name: str, number: int, *args: object) -> int:
    import ctypes

    result = int(libc.syscall(number, *args))
    if result < 0:
        raise FarError("unconfined", name + " on the host: " + os.strerror(ctypes.get_errno()))
    return result


def _allow(libc: CDLL, rules: int, fd: int, rights: int) -> None:
    if not os.path.isdir(f"/proc/self/fd/{fd}"):
        rights &= FILE_RIGHTS
    _call(libc, "landlock_add_rule", LANDLOCK_ADD, rules, 1, pack("=Qi", rights, fd), 0)


def _allow_path(libc: CDLL, rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this host, so nothing needs it
    try:
        _allow(libc, rules, fd, rights)
    finally:
        os.close(fd)


def _write_nowhere_else(libc: CDLL, place: int) -> int:
    """Enter a mount namespace in which everything is read-only but `place`; returns its descriptor there."""
    import ctypes

    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    clone = _call(libc, "open_tree", OPEN_TREE, place, b"", flags)
    os.fchdir(place)  # the working directory is what the new namespace takes along
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise FarError("unconfined", "unshare on the host: " + os.strerror(ctypes.get_errno()))
    attributes = pack("=QQQQ", _RDONLY, 0, _MS_PRIVATE, 0)
    _call(libc, "mount_setattr", MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, len(attributes))
    _call(libc, "move_mount", MOVE_MOUNT, clone, b"", _AT_FDCWD, b".", _MOVE_FROM_EMPTY)
    os.fchdir(clone)
    return clone
