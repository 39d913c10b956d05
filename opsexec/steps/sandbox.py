"""The step that starts a program in a sandbox of its own (bubblewrap on the host)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from opsexec.capability import Requirement, clean_path
from opsexec.errors import BadStep
from opsexec.secret import Secret, reveal
from opsexec.steps.argv import checked_argv
from opsexec.steps.base import Step

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
MOST_CPUS = 4096.0
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


class SandboxRun(Step, frozen=True, tag="sandbox_run"):
    """Run one program with nothing of the host but what is named here: no file, process, network or capability.

    Paths inside stand left, the host's right. A host path that ends with `/` is a tree, any other one thing.
    `read_only`, `writable`: what is bound. `links`: symbolic links to make inside. `tmpfs`: empty directories in
    memory, each of at most `tmpfs_bytes`. `doors`: a port of the sandbox's own loopback -> the unix socket inside that
    it leads to; they are the only way out unless `network`, which shares the host's network. `env` is the whole
    environment. `uid`, `gid`: who the program is inside. `pid_one`: it is the sandbox's first process and reaps
    orphans. `expendable`: a machine out of memory ends it first.

    `max_file_bytes`: the largest file it may make. `max_processes`, `max_memory_bytes`, `max_cpus` (1.5: one processor
    and a half): of all its processes together, 0: without; where the host lets the user make a control group these
    hold, elsewhere as far as process limits go (docs/bottle.md). `max_tree_bytes`, `max_tree_files`: of each writable
    tree; over it the sandbox is ended, with exit status 122.
    """

    family = "sandbox"

    name: str
    argv: Sequence[str]
    read_only: Mapping[str, str] = {}
    writable: Mapping[str, str] = {}
    links: Mapping[str, str] = {}
    tmpfs: tuple[str, ...] = ()
    tmpfs_bytes: int = 512 << 20
    env: Mapping[str, str | Secret] = {}
    cwd: str = "/"
    doors: Mapping[str, str] = {}
    network: bool = False
    hostname: str = "sandbox"
    uid: int = 1000
    gid: int = 1000
    max_open_files: int = 16384
    max_file_bytes: int = 64 << 30
    max_processes: int = 0
    max_memory_bytes: int = 0
    max_cpus: float = 0.0
    max_tree_bytes: int = 0
    max_tree_files: int = 0
    expendable: bool = False
    pid_one: bool = False
    stdin: str | Secret | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NAME.match(self.name):
            raise BadStep(f"sandbox name {self.name[:60]!r} is malformed", hint="letters, digits and _.-")
        msgspec.structs.force_setattr(self, "argv", checked_argv(self.argv))
        for inside, host in (*self.read_only.items(), *self.writable.items()):
            _absolute(inside)
            _absolute(host)
        for path in (*self.tmpfs, *self.links, *self.doors.values(), self.cwd):
            _absolute(path)
        twice = set(self.read_only) & set(self.writable)
        if twice:
            raise BadStep(f"{min(twice)} is bound both read-only and writable")
        for name, value in self.env.items():
            if not _VARIABLE.match(name) or "\0" in reveal(value):
                raise BadStep(f"environment variable {name[:60]!r} is malformed")
        for port in self.doors:
            if not _PORT.match(port) or int(port) > 65535:
                raise BadStep(f"door {port[:20]!r} is not a port")
        if not _HOSTNAME.match(self.hostname):
            raise BadStep(f"hostname {self.hostname[:60]!r} is malformed")
        if not 0 < self.uid < 1 << 31 or not 0 < self.gid < 1 << 31:
            raise BadStep("uid and gid are not those of a plain user", hint="leave them out")
        if min(self.tmpfs_bytes, self.max_open_files, self.max_file_bytes) <= 0:
            raise BadStep("a limit is not positive")
        more = (self.max_processes, self.max_memory_bytes, self.max_tree_bytes, self.max_tree_files)
        if min(more) < 0 or not 0 <= self.max_cpus <= MOST_CPUS:
            raise BadStep("a limit is negative, or no number of processors", hint="0 is without that limit")
        if self.pid_one and self.doors:
            raise BadStep("the first process of a sandbox can't have doors", hint="leave pid_one out")

    def requires(self) -> tuple[Requirement, ...]:
        needs = [Requirement("sandbox.run", self.name)]
        if self.network:
            needs.append(Requirement("sandbox.network", self.name))
        for host in dict.fromkeys(self.read_only.values()):
            needs.append(Requirement("fs.read", bound(host)))
        for host in dict.fromkeys(self.writable.values()):
            needs += [Requirement("fs.read", bound(host)), Requirement("fs.write", bound(host))]
        return tuple(needs)


def is_tree(host: str) -> bool:
    """True when this host path stands for a directory with all that is below it."""
    return host.endswith("/")


def bound(host: str) -> str:
    """Return what a grant must admit: the path itself, or `tree/**`, which only a pattern ending in `**` may admit.

    The handler holds a tree to that: as a name, `/srv/**` would also be admitted by `/srv/*`.
    """
    path = clean_path(host)
    return f"{path.rstrip('/')}/**" if is_tree(host) else path


def _absolute(path: str) -> None:
    clean_path(path)
    if not path.isprintable():
        raise BadStep(f"path {path[:60]!r} holds a character that can't be shown")
