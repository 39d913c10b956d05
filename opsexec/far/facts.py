"""Facts about this machine, as the kernel and the distribution tell them; what can't be told is null."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TOOLS = (
    "apt-get", "bash", "bwrap", "curl", "dnf", "docker", "fish", "git", "podman", "python3", "rsync",
    "runuser", "sftp-server", "sh", "ss", "sudo", "systemctl", "tailscale", "tar", "zypper",
)  # fmt: skip
TOOL_DIRECTORIES = (
    "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/lib/openssh",
)  # fmt: skip

REAL_FILE_SYSTEMS = frozenset((
    "9p", "apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfs", "jfs", "nfs", "nfs4",
    "overlay", "reiserfs", "tmpfs", "vfat", "virtiofs", "xfs", "zfs",
))  # fmt: skip
"""Mounts that hold files; proc, sysfs, cgroup and their like are left out."""


def facts(args: list[bytes]) -> list[bytes]:
    """[comma-separated names] -> [json object]; names as in `opsexec.steps.observe.FACT_NAMES`."""
    import json

    names = [name for name in args[0].decode("ascii", "replace").split(",") if name]
    return [json.dumps({name: fact(READERS, name) for name in names}).encode()]


def fact(readers: dict[str, Callable[[], Any]], name: str) -> Any:
    """Return one fact; null where its reader can't make sense of what this kernel or container shows it."""
    try:
        return readers[name]() if name in readers else None
    except (OSError, ValueError, LookupError):
        return None


def read_text(path: str) -> str | None:
    """Return a small file's text; None when it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:  # not there, or not ours to read: a fact that is left open
        return None


def os_facts() -> dict[str, Any]:
    """Distribution, as os-release(5) has it; its fields are null where there is no such file."""
    text = read_text("/etc/os-release") or read_text("/usr/lib/os-release") or ""
    fields = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields[key.strip()] = unquote(value.strip())
    like = fields.get("ID_LIKE")
    return {
        "id": fields.get("ID"),
        "like": like.split() if like else [],
        "version": fields.get("VERSION_ID"),
        "codename": fields.get("VERSION_CODENAME"),
        "name": fields.get("PRETTY_NAME"),
        "hostname": os.uname().nodename,
    }


def unquote(value: str) -> str:
    """Return a value of os-release(5) without its shell quotes."""
    import shlex

    try:
        words = shlex.split(value)
    except ValueError:
        return value
    return words[0] if len(words) == 1 else value.strip("\"'")


def kernel_facts() -> dict[str, Any]:
    """System, release and machine as in uname(2); `booted`: seconds since 1970; `uptime_s`: seconds."""
    name = os.uname()
    uptime = (read_text("/proc/uptime") or "").split()
    booted = None
    for line in (read_text("/proc/stat") or "").splitlines():
        if line.startswith("btime "):
            booted = number(line.split()[1])
    return {
        "system": name.sysname,
        "release": name.release,
        "machine": name.machine,
        "booted": booted,
        "uptime_s": float(uptime[0]) if uptime else None,
        "container": container(),
    }


def container() -> str | None:
    """Return the kind of container, as systemd, Docker and Podman mark theirs; null where none says so."""
    named = (read_text("/run/systemd/container") or "").strip()
    if named:
        return named
    marks = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
    return next((kind for mark, kind in marks.items() if os.path.exists(mark)), None)


def number(text: str) -> int | None:
    """Return the integer a field holds; None when it holds none."""
    return int(text) if text.isdigit() else None


def cpu_facts() -> dict[str, Any]:
    """`count`: processors online; `usable`: those this process may run on; `model`: as /proc names it."""
    model = None
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() in ("model name", "Model", "cpu model", "Processor"):
            model = value.strip()
            break
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"count": os.cpu_count(), "usable": usable, "model": model}


def memory_facts() -> dict[str, Any]:
    """Bytes of memory and swap, from /proc/meminfo (whose kB are 1024 bytes, proc(5))."""
    names = {
        "MemTotal": "total_bytes",
        "MemAvailable": "available_bytes",
        "MemFree": "free_bytes",
        "SwapTotal": "swap_total_bytes",
        "SwapFree": "swap_free_bytes",
    }
    found: dict[str, Any] = dict.fromkeys(names.values())
    for line in (read_text("/proc/meminfo") or "").splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[0] in names and words[1].isdigit():
            found[names[words[0]]] = int(words[1]) * 1024
    return found


def disk_facts() -> list[dict[str, Any]]:
    """One entry for each mount that holds files: sizes in bytes, `free_bytes` for a plain user."""
    mounts = read_text("/proc/self/mounts")
    if mounts is None:
        return [disk("/", None, None)]
    found: dict[str, dict[str, Any]] = {}
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) >= 4 and words[2] in REAL_FILE_SYSTEMS:
            where = unescape(words[1])
            found[where] = disk(where, unescape(words[0]), words[2])
    return [found[where] for where in sorted(found)]


def unescape(field: str) -> str:
    """Return a field of /proc/self/mounts with its octal escapes (\\040 is a space) undone."""
    import re

    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def disk(where: str, device: str | None, kind: str | None) -> dict[str, Any]:
    """Return one file system's sizes in bytes; null where statvfs(3) is refused."""
    sizes: dict[str, Any] = {
        "total_bytes": None,
        "free_bytes": None,
        "used_percent": None,
        "inodes_free": None,
    }
    try:
        info = os.statvfs(where)
    except OSError:  # its sizes are left open
        info = None
    if info is not None:
        sizes["total_bytes"] = info.f_blocks * info.f_frsize
        sizes["free_bytes"] = info.f_bavail * info.f_frsize
        sizes["inodes_free"] = info.f_favail
        used = info.f_blocks - info.f_bfree
        if used + info.f_bavail:
            sizes["used_percent"] = round(100 * used / (used + info.f_bavail), 1)
    return {"mount": where, "device": device, "type": kind, **sizes}


def network_facts() -> dict[str, Any]:
    """Host name, interfaces with hardware address and state, and the addresses that /proc tells."""
    interfaces: dict[str, dict[str, Any]] = {}
    try:
        names = sorted(os.listdir("/sys/class/net"))
    except OSError:  # no sysfs here
        names = []
    for name in names:
        base = f"/sys/class/net/{name}"
        interfaces[name] = {
            "mac": (read_text(f"{base}/address") or "").strip() or None,
            "state": (read_text(f"{base}/operstate") or "").strip() or None,
            "mtu": number((read_text(f"{base}/mtu") or "").strip()),
            "ipv6": [],
        }
    for line in (read_text("/proc/net/if_inet6") or "").splitlines():
        words = line.split()
        if len(words) == 6 and words[5] in interfaces:
            interfaces[words[5]]["ipv6"].append(ipv6(words[0], words[2]))
    return {"hostname": os.uname().nodename, "interfaces": interfaces, "ipv4": local_ipv4()}


def ipv6(digits: str, prefix: str) -> str:
    """Return an address of /proc/net/if_inet6, 32 hex digits, as people write it with its prefix length."""
    import socket

    return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))}/{int(prefix, 16)}"


def local_ipv4() -> list[str]:
    """Return this machine's own IPv4 addresses, from the kernel's local routes in /proc/net/fib_trie."""
    found = []
    last = ""
    for line in (read_text("/proc/net/fib_trie") or "").splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            last = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and last not in found:
            found.append(last)
    return found


def user_facts() -> dict[str, Any]:
    """Who this session is on the host: name, uid, gid, group names, home and shell."""
    import pwd

    from opsexec.far.attributes import group_name, user_name

    uid = os.geteuid()
    try:
        entry: pwd.struct_passwd | None = pwd.getpwuid(uid)
    except KeyError:
        entry = None
    groups = sorted({group_name(gid) for gid in os.getgroups()})
    return {
        "name": user_name(uid),
        "uid": uid,
        "gid": os.getegid(),
        "groups": groups,
        "home": None if entry is None else entry.pw_dir,
        "shell": None if entry is None else entry.pw_shell,
        "runtime_dir": runtime_dir(uid),
    }


def runtime_dir(uid: int) -> str | None:
    """Return where this user's own services listen (XDG_RUNTIME_DIR); null where no login has made it."""
    for path in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
        if path and os.path.isdir(path):
            return path
    return None


def python_facts() -> dict[str, Any]:
    """The Python that runs this."""
    import sys

    return {
        "version": ".".join(str(part) for part in sys.version_info[:3]),
        "executable": sys.executable or None,
    }


def tool_facts() -> dict[str, str | None]:
    """Where each of TOOLS stands, in the directories opsexec looks in; null when it doesn't."""
    found: dict[str, str | None] = {}
    for tool in TOOLS:
        paths = (f"{directory}/{tool}" for directory in TOOL_DIRECTORIES)
        found[tool] = next((path for path in paths if os.access(path, os.X_OK)), None)
    return found


READERS: dict[str, Callable[[], Any]] = {
    "os": os_facts,
    "kernel": kernel_facts,
    "cpu": cpu_facts,
    "memory": memory_facts,
    "disks": disk_facts,
    "network": network_facts,
    "user": user_facts,
    "python": python_facts,
    "tools": tool_facts,
}
