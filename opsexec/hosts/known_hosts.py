"""Host keys: what is known, what a host offered, and the sentence that shows both fingerprints when they differ."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from base64 import b64decode
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from opsexec.errors import HostKeyRejected
from opsexec.hosts.asyncssh_loader import asyncssh

if TYPE_CHECKING:
    from asyncssh.known_hosts import _KnownHostsResult

HostKeys = Literal["strict", "accept-new"]

TRIES, TRIES_HELD = 100, 3
"""How often, 10 ms apart, the file's lock is tried; and that of a file that was kept locked the last time."""
_kept_locked: set[Path] = set()


@lru_cache(maxsize=64)
def _read(path: str, stamp: tuple[int, int]) -> asyncssh.SSHKnownHosts:
    """Return a file's entries. A line that can't be read is passed over, as by ssh(1), unless it bears a marker.

    Raises ValueError for a broken line with a marker: it may have revoked a key.
    """
    text = Path(path).read_text("utf-8", "surrogateescape")
    _require_revocations(text)
    try:
        return asyncssh.import_known_hosts(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.lstrip().startswith("@") or _readable(line)]
        return asyncssh.import_known_hosts("\n".join(lines))


def _require_revocations(text: str) -> None:
    """Raise ValueError for a line that revokes what is no key: asyncssh passes it over, and which it meant is unknown.

    A key of a kind that asyncssh doesn't have (RFC 4253, 6.6) is none that a host could prove itself by here.
    """
    for line in text.splitlines():
        words = line.split()
        if words[:1] != ["@revoked"]:
            continue
        kind, data = (*words[2:4], "", "")[:2]
        if not kind.startswith("x509v3-"):
            blob, name = b64decode(data, validate=True), kind.encode("utf-8", "surrogateescape")
            if not blob.startswith(len(name).to_bytes(4, "big") + name):
                raise ValueError(f"a line revokes what is no key: {line.strip()[:80]!r}")


def _readable(line: str) -> bool:
    try:
        asyncssh.import_known_hosts(line)
    except ValueError:
        return False
    return True


def _lock(fd: int, path: Path) -> None:
    """Lock the file against other logins that learn a key. Raises OSError when someone keeps it locked for a second.

    Nothing else goes on meanwhile: of a file that was kept locked when it was last asked for, far less is waited.
    """
    for _ in range(TRIES_HELD if path in _kept_locked else TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)  # who holds it writes one line
        else:
            _kept_locked.discard(path)
            return
    _kept_locked.add(path)
    raise OSError(errno.EWOULDBLOCK, f"another process keeps it locked: fuser {path} says which")


class HostKeyCheck(asyncssh.SSHClient):
    """One connection's decision about the host's key. Strict: unknown and changed keys are refused.

    accept-new: an unknown host's key is written to the first file and trusted; a changed one is refused all the same.
    `alias` is what the key is kept under (HostKeyAlias), without a port, as ssh(1) has it.
    """

    def __init__(self, files: Sequence[str], policy: HostKeys, *, alias: str | None = None) -> None:
        self.files = files
        self.alias = alias
        self.policy = policy
        self.known: list[asyncssh.SSHKey] = []
        self.refused: asyncssh.SSHKey | None = None
        self.where = ""
        self.unreadable: str | None = None
        self.unwritable: str | None = None
        self.revoked: list[asyncssh.SSHKey] = []
        self.certified = False
        self._asked: tuple[str, str, int | None] = ("", "", None)

    def lookup(self, host: str, addr: str, port: int | None) -> _KnownHostsResult:
        """Return what the files say about a host, as asyncssh asks for it.

        Nothing where one of them can't be understood: it may say that a key was revoked which another vouches for.
        """
        self._asked = (host, addr, port)
        found: _KnownHostsResult = ([], [], [], [], [], [], [])
        doubtful = False
        for name in self.files:
            path = Path(os.path.expanduser(name))
            try:
                status = path.stat()
                known = _read(str(path), (status.st_mtime_ns, status.st_size))
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                self.unreadable = f"{path}: {error}"
                doubtful |= isinstance(error, ValueError)
                continue
            parts: tuple[Sequence[object], ...] = known.match(host, addr, port)
            for into, part in zip(cast("tuple[list[object], ...]", found), parts, strict=True):
                into.extend(part)
        if doubtful:
            found = ([], [], [], [], [], [], [])
        self.known = list(found[0])
        self.certified = bool(found[1])
        self.revoked = list(found[2])
        return found

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Called for a key that no file vouches for."""
        self.where = self.alias or (host if port in (0, 22) else f"[{host}]:{port}")
        self.refused = key
        if self.policy != "accept-new" or self.known or self.certified or self.unreadable is not None:
            return False
        if not self.files:
            self.unwritable = "no file is named"
            return False
        try:
            accepted = self._accept(key)
        except OSError as error:
            self.unwritable = f"{self.files[0]}: {error.strerror}"
            return False
        if accepted:
            self.refused = None
        return accepted

    def _accept(self, key: asyncssh.SSHKey) -> bool:
        """Append the key to the first file (created 0600), unless another login has learnt another key meanwhile."""
        path = Path(os.path.expanduser(self.files[0]))
        if path.parts[:1] == ("~",):
            raise OSError(errno.ENOENT, "there is no home directory")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = f"{self.where} ".encode() + key.export_public_key("openssh").split(b"\n")[0].strip() + b"\n"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file, and forgets")
            _lock(fd, path)
            self.lookup(*self._asked)
            if self.known or self.revoked:
                return key in self.known and key not in self.revoked
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line
            written = os.write(fd, line)
            if written != len(line):  # a full disk: taken back, so that nothing stands behind a torn line
                os.ftruncate(fd, os.fstat(fd).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
        return True

    def rejection(self, name: str, reason: str = "") -> HostKeyRejected:
        """Return the error to raise after asyncssh refused the host's key for this reason, in its own words."""
        got = self.refused.get_fingerprint() if self.refused else None
        expected = ", ".join(sorted({key.get_fingerprint() for key in self.known})) or None
        first = next((file for file in self.files if file != os.devnull), "~/.ssh/known_hosts")
        if self.unreadable:
            return HostKeyRejected(
                f"the known hosts can't be read ({self.unreadable})",
                expected=None,
                got=got,
                host=name,
                hint="mend the file",
            )
        if self.unwritable:
            return HostKeyRejected(
                f"the host's new key {got} can't be remembered ({self.unwritable})",
                expected=None,
                got=got,
                host=name,
                hint="make the known hosts file writable, or name another",
            )
        if "revoked" in reason:
            known = ", ".join(sorted({key.get_fingerprint() for key in self.revoked}))
            return HostKeyRejected(
                f"the host key is revoked: {known or 'its certificate'}",
                expected=None,
                got=known or None,
                host=name,
                hint=f"see the @revoked lines of {first}",
            )
        if expected:
            return HostKeyRejected(
                f"the host key changed: known {expected}, offered {got or 'a key of another kind'}",
                expected=expected,
                got=got,
                host=name,
                hint=f"someone may be in between; if the host was really reinstalled, remove its line from {first}",
            )
        return HostKeyRejected(
            f"the host key is not known: known none, offered {got}",
            expected=None,
            got=got,
            host=name,
            hint=f"check the fingerprint on the host, then add it to {first}, or use host keys accept-new",
        )
