"""The filter of system calls that a sandbox's programs run under (seccomp(2)), as classic BPF.

What is refused is what no coding agent's work needs and what opens the kernel to it: mounting, namespaces, modules,
keys, tracing of the kernel, clocks, io_uring (whose requests no filter sees), odd socket families, typing into a
terminal; and what holds up others or uses up their share: leases on files, whose next reader waits, and the old
asynchronous I/O, of which the whole machine has one small share (fs.aio-max-nr). What is newer than this list is
answered as if the kernel didn't have it. Calls of another architecture end the process.
"""

from __future__ import annotations

import os
from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h, by uname's machine. Elsewhere there is no filter, and `program` says so."""

REFUSED = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clock_adjtime": (305, 266),
    "clock_settime": (227, 112), "create_module": (174, None), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fsopen": (430, 430), "fspick": (433, 433), "get_kernel_syms": (177, None), "init_module": (175, 105),
    "ioperm": (173, None), "iopl": (172, None), "kexec_file_load": (320, 294), "kexec_load": (246, 104),
    "keyctl": (250, 219), "lookup_dcookie": (212, 18), "modify_ldt": (154, None), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "perf_event_open": (298, 241), "pivot_root": (155, 41), "query_module": (178, None), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "reboot": (169, 142), "request_key": (249, 218), "setns": (308, 268),
    "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224), "sysfs": (139, None),
    "syslog": (103, 116), "_sysctl": (156, None), "umount2": (166, 39), "uselib": (134, None),
    "userfaultfd": (323, 282), "ustat": (136, None), "vhangup": (153, 58),
}  # type: dict[str, tuple[int, int | None]]  # fmt: skip
"""Name -> its number on x86_64 and on aarch64; refused with EPERM."""

ABSENT = {
    "clone3": (435, 435), "io_setup": (206, 0),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
}  # type: dict[str, tuple[int, int | None]]  # fmt: skip
"""Answered with ENOSYS: callers know what to do instead (a filter can't look behind clone3's pointer)."""

PINNED = {"sched_setaffinity": (203, 122)}  # type: dict[str, tuple[int, int | None]]
"""Refused where the processors that a program was started on are its bound (EPERM)."""

LOOKED_INTO = {
    "clone": (56, 220), "unshare": (272, 97), "ioctl": (16, 29), "socket": (41, 198), "socketpair": (53, 199),
    "personality": (135, 92), "fcntl": (72, 25),
}  # type: dict[str, tuple[int, int | None]]  # fmt: skip
"""Calls that are refused by their arguments."""

NEWER = 463
"""The first number that isn't known here (Linux 6.10). From 424 on all architectures count alike (syscalls(2))."""

NAMESPACES = 0x7E020080
"""Every CLONE_NEW* flag of sched.h, CLONE_NEWTIME included, which clone itself can't take."""
CLONE_NAMESPACES = 0x7E020000
"""The same without CLONE_NEWTIME, whose bit is part of the exit signal there (clone(2))."""
TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI, and TIOCLINUX, which pastes a selection: both put words into a terminal as if they were typed."""
TERMINALS = (*TERMINAL_INPUT, 0x5423)
"""These and TIOCSETD, which has the kernel load a line discipline: drivers of modems and radios, seldom looked at."""
LEASES = (0x400, 0x410)
"""F_SETLEASE and F_SETDELEG of fcntl(2): who opens such a file next, on the host too, waits for its holder (45 s)."""
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
INTERNET_PROTOCOLS = (0, 6, 17)

EPERM, ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT = 1, 38, 93, 97
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16


def program(machine: str | None = None, pinned: bool = False) -> bytes | None:
    """Return the filter for a machine (uname's word, None: this one); None where its numbers aren't known here.

    `pinned`: nothing leaves the processors that it was started on.
    """
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURES:
        return None
    at = list(ARCHITECTURES).index(machine)
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, NEWER),  # also every call of the x32 kind, whose numbers carry bit 30
        (_RETURN, 0, 0, _ERRNO | ENOSYS),
    ]
    for calls, error in ((REFUSED, EPERM), (PINNED if pinned else {}, EPERM), (ABSENT, ENOSYS)):
        for numbers in calls.values():
            number = numbers[at]
            if number is not None:
                code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    for name, numbers in LOOKED_INTO.items():
        body = _looked_into(name)
        number = numbers[at]
        assert number is not None
        code += [(_EQUAL, 0, len(body), number), *body]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(pack("=HBBI", *each) for each in code)


def _looked_into(name: str) -> list[tuple[int, int, int, int]]:
    """Return what decides about one call; each of these bodies ends in a verdict.

    Arguments are compared in their lower 32 bits, which is all that the kernel takes of them.
    """
    if name in ("clone", "unshare"):
        flags = NAMESPACES if name == "unshare" else CLONE_NAMESPACES
        return [_argument(0), (_ANY_BIT, 0, 1, flags), _no(EPERM), _YES]
    if name == "ioctl":
        return [_argument(1), *_unless_one_of(TERMINALS, _no(EPERM), _YES)]
    if name == "fcntl":
        return [_argument(1), *_unless_one_of(LEASES, _no(EPERM), _YES)]
    if name == "personality":
        return [_argument(0), *_unless_one_of(PERSONALITIES, _YES, _no(EPERM))]
    if name == "socketpair":
        return [_argument(0), *_unless_one_of((UNIX,), _YES, _no(EAFNOSUPPORT))]
    internet = [_argument(2), *_unless_one_of(INTERNET_PROTOCOLS, _YES, _no(EPROTONOSUPPORT))]
    netlink = [_argument(2), *_unless_one_of((0,), _YES, _no(EPROTONOSUPPORT))]  # NETLINK_ROUTE
    return [
        _argument(0),
        (_EQUAL, 0, 1, UNIX),
        _YES,
        (_EQUAL, 1, 0, INET),
        (_EQUAL, 0, len(internet), INET6),
        *internet,
        (_EQUAL, 0, len(netlink), NETLINK),
        *netlink,
        _no(EAFNOSUPPORT),
    ]


_YES = (_RETURN, 0, 0, _ALLOW)


def _no(error: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | error)


def _argument(which: int) -> tuple[int, int, int, int]:
    """Load an argument's lower half; both architectures are little-endian."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * which)


def _unless_one_of(
    values: Sequence[int], found: tuple[int, int, int, int], else_: tuple[int, int, int, int]
) -> list[tuple[int, int, int, int]]:
    """Return the verdict `found` where the loaded word is one of the values, `else_` where it is none."""
    tests = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [*tests, else_, found]
