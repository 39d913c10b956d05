"""What a hostile program does inside a bottle to get out of it; this file's text goes in whole."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
SETTINGS = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
    "/proc/sys/kernel/modprobe", "/proc/irq/0/smp_affinity", "/sys/kernel/mm/ksm/run",
    "/sys/fs/cgroup/release_agent", "/proc/1/attr/current",
)  # fmt: skip


PROGRAMS = ("unshare -Ur true", "unshare -m true", "mount -t tmpfs x /tmp")
SOCKETS = (
    "/run/docker.sock", "/var/run/docker.sock", "/run/user", "/run/dbus", "/tmp/.X11-unix", "/run/podman",
    "/run/containerd", "/var/run/tailscale",
)  # fmt: skip


def tried(work: Callable[[], Any]) -> str:
    """What an attempt ends in: the error's kind, or what it gave."""
    try:
        return repr(work())
    except OSError as error:
        return type(error).__name__


def call(*words: Any) -> str:
    """A system call's error, or "done"; first its number."""
    return "done" if LIBC.syscall(*words) >= 0 else os.strerror(ctypes.get_errno())


def done(*argv: str) -> bool:
    """Whether a program says that it could."""
    return subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode == 0


def write(path: str) -> None:
    """Open a file for writing, and write."""
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"1")


def calmer() -> None:
    """Ask to be spared when memory runs out."""
    Path("/proc/self/oom_score_adj").write_text("-1000")


def own_terminal() -> str:
    """Type into a terminal of its own making, as one would into the operator's."""
    _, other = os.openpty()
    return tried(lambda: fcntl.ioctl(other, 0x5412, b"x"))


def abstract(name: str) -> str:
    """Knock at a name that has no file."""
    with socket.socket(socket.AF_UNIX) as made:
        return tried(lambda: made.connect("\0" + name))


def other_processes() -> list[str]:
    """The words of every process in sight that isn't this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            found.append((entry / "cmdline").read_bytes().decode("utf-8", "replace"))
    return found


def escapes(outside: str) -> dict[str, Any]:
    """Every way out that isn't the network; `outside`: an abstract socket of the host's."""
    status = Path("/proc/self/status").read_text()
    return {
        "descriptors": sorted(int(each) for each in os.listdir("/proc/self/fd"))[:-1],
        "program": os.readlink("/proc/self/exe"),
        "settings": {path: tried(partial(write, path)) for path in SETTINGS},
        "spared": [tried(calmer), Path("/proc/self/oom_score_adj").read_text().strip()],
        "namespaces": {
            "unshare": [LIBC.unshare(flag) for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x02000000)],
            "programs": [done(*words.split()) for words in PROGRAMS],
            "setns": [LIBC.setns(os.open(f"/proc/self/ns/{name}", os.O_RDONLY), 0) for name in ("mnt", "net", "pid")],
            "chroot": tried(lambda: os.chroot("/tmp")),
        },
        "first process": {
            "memory": tried(lambda: open("/proc/1/mem", "rb")),
            "environment": tried(lambda: open("/proc/1/environ", "rb").read()),
            "descriptors": tried(lambda: os.open("/proc/1/fd/3", os.O_RDWR)),
            "root": tried(lambda: os.listdir("/proc/1/root")),
            "traced": LIBC.ptrace(16, 1, 0, 0),
            "killed": [tried(lambda: os.kill(1, 9)), tried(lambda: os.kill(1, 19))],
        },
        "in sight": other_processes(),
        "setuid": {
            "became root": done("/usr/bin/su", "-c", "id"),
            "no new privileges": "NoNewPrivs:\t1" in status,
            "filtered": "Seccomp:\t2" in status,
            "capabilities": [line.split()[1] for line in status.splitlines() if line.startswith("Cap")],
        },
        "terminal": [tried(lambda: os.open("/dev/tty", os.O_RDWR)), own_terminal()],
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "clock": [tried(lambda: time.clock_settime(time.CLOCK_REALTIME, 1e9)), done("date", "-s", "2001-01-01")],
        "sockets": {
            "abstract": abstract(outside),
            "known": [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if "@" in line],
            "named": sorted(name for name in os.environ if name.endswith(("_SOCK", "_ADDRESS", "DISPLAY", "_INFO"))),
            "there": [each for each in SOCKETS if os.path.exists(each)],
        },
        "kernel": {name: call(*words) for name, words in KERNEL.items()},
    }  # fmt: skip


KERNEL = {
    "bpf": (321, 0, 0, 0),
    "perf": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0),
    "keys": (248, b"user", b"x", b"y", 1, -3),
    "io_uring": (425, 8, ctypes.create_string_buffer(256)),
    "vsock": (41, 40, 1, 0),
    "packet": (41, 17, 3, 0),
    "crypto": (41, 38, 5, 0),
    "bluetooth": (41, 31, 3, 0),
    "lease": (72, -1, 0x400, 1),
    "line discipline": (16, -1, 0x5423, 0),
    "aio": (206, 1, ctypes.create_string_buffer(8)),
    "clone3": (435, ctypes.create_string_buffer(88), 88),
    "newer than known": (470, 0, 0),
}
"""x86_64's numbers; elsewhere they are other calls, and the test doesn't ask."""


def bomb(most: int) -> tuple[int, list[int]]:
    """Fork until it fails; the children stay."""
    pids: list[int] = []
    try:
        while len(pids) < most:
            pid = os.fork()
            if pid == 0:
                time.sleep(300)
                os._exit(0)
            pids.append(pid)
    except OSError:
        pass
    return len(pids), pids


def swallow(most: int) -> str:
    """Take memory, in a process of its own, until somebody says no; how that one ended."""
    pid = os.fork()
    if pid == 0:
        kept = []
        try:
            for _ in range(most >> 24):
                kept.append(bytearray(b"x") * (1 << 24))
        except MemoryError:
            os._exit(3)
        os._exit(0)
    return {3: "refused", -9: "killed", 0: "all of it"}.get(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "else")


def fill(place: str, most: int) -> str:
    """Write until it fails."""
    try:
        with open(f"{place}/fill", "wb") as file:
            for _ in range(most >> 20):
                file.write(bytes(1 << 20))
    except OSError as error:
        return error.strerror or ""
    return "all of it"
