"""Unix sockets to listen on: their directory is checked, a dead one is cleared away, a live one is left alone."""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agent.errors import AgentUnable

BACKLOG = 1024
"""Connections that may wait to be taken; beyond them connect() on a unix socket fails at once."""
TURN_S = 5.0
"""Seconds that another agent, which is making a socket in the same directory, is waited for at most."""
LOOK_S = 0.02


def bind_unix(path: str, mode: int, group: str | None, *, private: bool = False) -> socket.socket:
    """Return a listening socket at `path` with this mode and group; raises AgentUnable and leaves things as they were.

    The socket is not open to anyone else for a moment either: it is made 0600, then given its group and mode.
    `private`: whoever reaches it is who it stands for, so others must not get into its directory at all.
    """
    directory = os.path.dirname(path)
    _make_directory(directory, 0o700 if private else 0o755)
    check_directory(directory)
    if private and os.stat(directory).st_mode & 0o007:
        hint = f"chmod o= {directory}"
        raise AgentUnable(f"{directory} is open to others, and a bottle's socket is in it", hint=hint)
    gid = _group(group)
    with _turn(directory):
        return _bound(path, mode, gid)


@contextmanager
def _turn(directory: str) -> Iterator[None]:
    """Be the only agent that makes a socket there: one that is bound and not yet listened on looks like a dead one.

    Whoever may read the directory could hold its lock for ever. That keeps no agent away: after TURN_S it goes on.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AgentUnable(f"can't lock {directory}: {error.strerror}", hint="let the agent's user read it") from error
    try:
        end = time.monotonic() + TURN_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    break
                time.sleep(LOOK_S)
        yield
    finally:
        os.close(fd)


def _bound(path: str, mode: int, gid: int | None) -> socket.socket:
    _clear_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise AgentUnable(f"can't listen on {path}: {error.strerror}", hint="is its directory writable?") from error
    finally:
        os.umask(before)
    try:
        if gid is not None:
            os.chown(path, -1, gid)
        os.chmod(path, mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        os.unlink(path)
        raise AgentUnable(f"can't set up {path}: {error.strerror}", hint="may this user give it that group?") from error
    return listener


def _make_directory(directory: str, mode: int) -> None:
    try:
        try:
            os.mkdir(directory, mode)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(directory), 0o755)
            os.mkdir(directory, mode)
    except FileExistsError:
        return
    except OSError as error:
        raise AgentUnable(f"can't make {directory}: {error.strerror}", hint="make it first") from error


def check_directory(directory: str) -> None:
    """Raise AgentUnable when someone else could put another socket where ours is.

    The directory itself and every one above it must be root's or this user's, and writable for nobody else; above it
    a sticky one like /tmp is fine, since others can't rename what isn't theirs there.
    """
    if os.path.realpath(directory) != directory:
        raise AgentUnable(f"{directory} is reached through a symbolic link", hint="name the directory it leads to")
    above = directory
    while True:
        status = os.stat(above)
        if status.st_uid not in (0, os.geteuid()):
            raise AgentUnable(f"{above} belongs to another user", hint="chown it to root or to the agent's user")
        sticky = above != directory and status.st_mode & stat.S_ISVTX
        if status.st_mode & 0o022 and not sticky:
            raise AgentUnable(f"{above} is writable for others", hint=f"chmod go-w {above}")
        if above == "/":
            return
        above = os.path.dirname(above)


def _clear_dead(path: str) -> None:
    """Remove a socket that nobody listens on; raises AgentUnable for a live one and for anything else."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise AgentUnable(f"{path} is there and is not a socket", hint="move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(path)
            return
        except OSError as error:
            raise AgentUnable(f"{path} is in use ({error.strerror})", hint="is another agent running?") from error
    raise AgentUnable(f"something listens on {path} already", hint="is another agent running?")


def _group(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise AgentUnable(f"there is no group {name!r} for the socket", hint="make the group first") from None
