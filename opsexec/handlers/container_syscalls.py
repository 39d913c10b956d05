"""The system calls that a container may make where its step says `syscalls="tight"`: a profile of ours for the engine.

It names what is allowed; the rest is refused. It allows nothing that a sandbox's filter refuses (whose tables give the
arguments), and nothing that the engines' own default refuses, from Docker 20.10 on, with two exceptions (`ALLOWED`).
The calls are this machine's own: a program of another architecture ends, as in a sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from opsexec.engine.answers import Info
from opsexec.far.syscall_filter import (
    ABSENT,
    ARCHITECTURES,
    CLONE_NAMESPACES,
    ENOSYS,
    INET,
    INET6,
    INTERNET_PROTOCOLS,
    NETLINK,
    PERSONALITIES,
    TERMINALS,
    UNIX,
)

ALLOWED = """
accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto
setsockopt shutdown

access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate
fanotify_mark fchdir fchmod fchmodat fchown fchownat fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr
fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat
mkdir mkdirat mknod mknodat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
read readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat
statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes
vmsplice write writev

epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
io_cancel io_destroy io_getevents io_pgetevents io_submit poll ppoll pselect6 select signalfd signalfd4
timerfd_create timerfd_gettime timerfd_settime

brk madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall munmap
remap_file_pages

arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getegid geteuid
getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid
getuid ioprio_get ioprio_set kill pause pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setpgid setpriority setregid
setresgid setresuid setreuid setrlimit setsid setuid sigaltstack tgkill tkill vfork wait4 waitid

adjtimex alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time
timer_create timer_delete timer_getoverrun timer_gettime timer_settime times

futex mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget
semop semtimedop shmat shmctl shmdt shmget

getrandom sysinfo uname

landlock_add_rule landlock_create_ruleset landlock_restrict_self
"""
"""Allowed whatever their arguments; one that a machine's architecture doesn't have is passed over by who compiles it.

What every engine's default has allowed since 20.10.0, and beside it two that joined within that line: `close_range` and
`epoll_pwait2` (20.10.4) do what older calls do, and Landlock (20.10.18) takes rights from its caller alone.
"""

NEWER_KINDS = """
cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat listmount listxattrat lsm_get_self_attr
lsm_list_modules lsm_set_self_attr map_shadow_stack memfd_secret mseal pkey_alloc pkey_free pkey_mprotect
process_mrelease removexattrat set_mempolicy_home_node setxattrat statmount
"""
"""Not there, beside ABSENT: newer calls in whose place a C library or a runtime does something else on ENOSYS alone."""

TRACING = "4.8"
"""The first kernel where a tracer can't change calls behind the filter's back (ptrace(2), seccomp(2))."""

WORD = 0xFFFFFFFF
OWN_DEFAULTS = ("default", "builtin", "unconfined")
"""What an engine calls its profile where its operator gave it none, in `SecurityOptions` of its info."""


def taken_by(info: Info) -> bool:
    """True where an engine takes the profile, and it isn't in the place of one that the engine's operator wrote.

    False on architectures whose calls aren't known here, on a kernel without seccomp, and for podman, which takes a
    file's name in the profile's place.
    """
    if info.architecture not in ARCHITECTURES or info.buildah is not None:
        return False
    told = [each.split(",") for each in info.security_options or ()]
    return any(words == ["name=seccomp", f"profile={own}"] for words in told for own in OWN_DEFAULTS)


@cache
def profile() -> str:
    """Return the profile as the engine takes it (Docker's seccomp profiles: runtime-spec's rules and `archMap`)."""
    absent = sorted({*ABSENT, *NEWER_KINDS.split()})
    rules = [
        _allow(sorted(ALLOWED.split())),
        {"names": absent, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        _allow(["ptrace"]) | {"includes": {"minKernel": TRACING}},
        _allow(["clone"], (0, CLONE_NAMESPACES, 0)),
        *(_allow(["personality"], (0, WORD, value)) for value in PERSONALITIES),
        _allow(["socketpair"], (0, WORD, UNIX)),
        *(_allow(["socket"], *arguments) for arguments in _sockets()),
        *(_allow(["ioctl"], (1, mask, value)) for mask, value in _other_than(TERMINALS)),
        *(_allow(["fcntl"], (1, mask, value)) for mask, value in _file_commands()),
    ]
    made = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": f"SCMP_ARCH_{machine.upper()}", "subArchitectures": []} for machine in ARCHITECTURES
        ],
        "syscalls": rules,
    }
    return json.dumps(made, separators=(",", ":"))


def _allow(names: list[str], *arguments: tuple[int, int, int]) -> dict[str, Any]:
    """Return a rule; `arguments`: (which, mask, what is left of it), all of which must hold.

    Only masked comparisons: the kernel takes 32 bits of these arguments, and a plain one compares 64.
    """
    args = [
        {"index": which, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value}
        for which, mask, value in arguments
    ]
    return {"names": names, "action": "SCMP_ACT_ALLOW", **({"args": args} if args else {})}


def _sockets() -> Iterator[tuple[tuple[int, int, int], ...]]:
    """Return what sockets there are, as a sandbox's filter has them: family, and protocol."""
    yield ((0, WORD, UNIX),)
    yield (0, WORD, NETLINK), (2, WORD, 0)
    for family in (INET, INET6):
        for protocol in INTERNET_PROTOCOLS:
            yield (0, WORD, family), (2, WORD, protocol)


def _file_commands() -> Iterator[tuple[int, int]]:
    """(mask, what is left) pairs: fcntl's commands but LEASES, the first and the last of 17 from 0x400 (linux/fcntl.h).

    Few, as each rule takes its time at a start; what comes behind those 17 one day isn't among them.
    """
    yield WORD ^ 0x3FF, 0
    for bit in (1, 2, 4, 8):
        yield WORD ^ 0xF | bit, 0x400 | bit


def _other_than(values: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Return (mask, what is left) pairs: a word of 32 bits that is none of the values matches one of them at least.

    A profile has no word for "not, under a mask". A word is none of the values where, among those that it agrees with
    as far as they differ from each other, it differs from all in one bit.
    """
    groups = [(0, values)]
    """Bits that tell a group from the others, and the group."""
    for bit in (1 << at for at in reversed(range(32))):
        parted = []
        for telling, group in groups:
            sides = [tuple(each for each in group if each & bit == side) for side in (0, bit)]
            for side, alike in zip((0, bit), sides, strict=True):
                if not alike:
                    yield telling | bit, group[0] & telling | side
                else:
                    parted.append((telling | bit if all(sides) else telling, alike))
        groups = parted
