"""What is kept of a bottle on its launcher: a directory by identity, metadata, and a lock that tells who is alive.

The kernel frees the lock however the launcher ends, so "running" is never a guess and no process id is trusted alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from bottle.errors import BadManifest, BottleRunning, BottleUnreadable, NoSuchBottle
from opsexec.errors import OpsError

IDENTITY = re.compile(r"[a-z][a-z0-9-]{0,63}-[0-9a-f]{8}\Z")
METADATA = "metadata.json"
LOCK = "lock"
POLL_S = 0.02
LOCK_S = 0.25
"""How long a lock is asked for: whoever looks if a bottle is alive has it for a moment."""

Phase = Literal["launching", "running", "stopped"]


def new_identity(agent: str) -> str:
    """Return `<agent>-<random>`: two bottles of one agent never meet."""
    return f"{agent}-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Metadata:
    """One bottle, as `resume` and `list` find it. `started_at`: seconds since the epoch. Holds no secret."""

    identity: str
    agent: str
    cwd: str
    copy_cwd: bool
    started_at: float
    backend: str | None = None
    arguments: tuple[str, ...] = ()
    digest: str = ""
    phase: Phase = "launching"
    launcher: dict[str, int] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    host: dict[str, str] = field(default_factory=dict)


class State:
    """The directory of every bottle's state, under the home root."""

    def __init__(self, root: Path) -> None:
        self.root = root / "state"

    def directory(self, identity: str) -> Path:
        """Return where this bottle is kept; raises NoSuchBottle for a text that is no identity."""
        if not IDENTITY.match(identity):
            raise NoSuchBottle(f"{identity[:80]!r} is no bottle's identity", hint="`bottle list --all` shows them")
        return self.root / identity

    def make(self, metadata: Metadata) -> Path:
        """Make a bottle's directory and write its metadata."""
        directory = self.place(metadata.identity)
        self.write(metadata)
        return directory

    def place(self, identity: str) -> Path:
        """Make a bottle's directory, in one that nobody else may change: its name is what bottles are found by.

        Raises OpsError where the latter is somebody else's.
        """
        directory = self.directory(identity)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = self.root.stat()
        if info.st_uid not in (0, os.geteuid()):
            raise OpsError(f"{self.root} belongs to uid {info.st_uid}", hint="set BOT_BOTTLE_ROOT to a place of yours")
        if info.st_mode & 0o022:
            self.root.chmod(stat.S_IMODE(info.st_mode) & ~0o022)
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def write(self, metadata: Metadata) -> None:
        """Replace a bottle's metadata, whole; raises OSError that names them."""
        path = self.directory(metadata.identity) / METADATA
        beside = path.with_suffix(".new")
        try:
            beside.write_text(json.dumps(asdict(metadata), indent=1) + "\n", "utf-8")
            beside.chmod(0o600)
            beside.replace(path)
        except OSError as error:  # a disk that is full names no file (write(2))
            raise OSError(error.errno, error.strerror, str(path)) from error

    def read(self, identity: str) -> Metadata:
        """Return a bottle's metadata; raises NoSuchBottle, and BottleUnreadable where there is something else.

        What a later version writes beside them is left alone.
        """
        path = self.directory(identity) / METADATA
        hint = "`bottle cleanup --all` removes it, with its home"
        try:
            metadata = msgspec.json.decode(path.read_bytes(), type=Metadata)
        except FileNotFoundError:
            raise NoSuchBottle(f"there is no bottle {identity}", hint="`bottle list --all` shows them") from None
        except (OSError, UnicodeDecodeError, RecursionError, msgspec.MsgspecError) as error:
            raise BottleUnreadable(f"{path} can't be read: {error}", hint=hint) from error
        if metadata.identity != identity:
            raise BottleUnreadable(f"{path} is another bottle's", hint=hint)
        return metadata

    def identities(self) -> list[str]:
        """Return every identity there is a directory for, sorted."""
        try:
            return sorted(name for name in os.listdir(self.root) if IDENTITY.match(name))
        except FileNotFoundError:
            return []

    @contextmanager
    def held(self, identity: str) -> Iterator[None]:
        """Hold a bottle's lock: as long as this lasts it counts as running.

        Raises BottleRunning when someone else does, NoSuchBottle where its directory is gone.
        """
        path = self.directory(identity) / LOCK
        gone = NoSuchBottle(f"bottle {identity} was removed just now", hint="by `bottle cleanup`? start another one")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            raise gone from None
        try:
            if not _locked(fd):
                raise BottleRunning(f"bottle {identity} is running already", hint=f"bottle stop {identity}")
            if os.fstat(fd).st_nlink == 0:  # whoever held it before took all of it away
                raise gone
            yield
        finally:
            os.close(fd)

    def alive(self, identity: str) -> bool:
        """True while a launcher holds this bottle's lock."""
        try:
            fd = os.open(self.directory(identity) / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def running(self) -> list[Metadata]:
        """Return the running bottles, by (started_at, identity)."""
        found = []
        for identity in self.identities():
            if self.alive(identity):
                try:
                    found.append(self.read(identity))
                except NoSuchBottle:  # its launcher is between making the directory and writing it
                    continue
        return sorted(found, key=lambda each: (each.started_at, each.identity))

    def stop(self, identity: str, within_s: float) -> bool:
        """End a bottle by asking its launcher to; returns False when it wasn't running.

        Raises OpsError when it still runs after `within_s` seconds.
        """
        if not self.alive(identity):
            self.read(identity)
            return False
        launcher = self.read(identity).launcher
        _signal(launcher, identity)
        end = time.monotonic() + within_s
        while self.alive(identity):
            if time.monotonic() > end:
                raise OpsError(f"bottle {identity} still runs after {within_s:g} s", hint="is its host hanging?")
            time.sleep(POLL_S)
        return True


def _locked(fd: int) -> bool:
    """Take a lock, unless somebody has it for longer than a look takes."""
    end = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(POLL_S / 4)
        else:
            return True


def this_process() -> dict[str, int]:
    """Return what finds this process again: its id and when it began, in the kernel's ticks."""
    return {"pid": os.getpid(), "began": _began(os.getpid())}


def _began(pid: int) -> int:
    """Return field 22 of /proc/PID/stat (proc_pid_stat(5))."""
    text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return int(text.rpartition(")")[2].split()[19])


def _signal(launcher: dict[str, int], identity: str) -> None:
    try:
        pidfd = os.pidfd_open(launcher["pid"])
    except (KeyError, OSError) as error:
        raise OpsError(f"the launcher of {identity} can't be found", hint="it may be ending: try again") from error
    try:
        if _began(launcher["pid"]) != launcher["began"]:
            raise OpsError(f"the launcher of {identity} is another process by now", hint="try again")
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except OSError as error:
        raise OpsError(f"the launcher of {identity} can't be signalled: {error.strerror}") from error
    finally:
        os.close(pidfd)


def require_backend(name: str | None, known: tuple[str, ...]) -> str:
    """Return the backend to resume on: docker where none was recorded; raises BadManifest for an unknown one."""
    found = name or "docker"
    if found not in known:
        raise BadManifest(f"the state names the backend {found[:40]!r}", hint="known: " + ", ".join(known))
    return found
