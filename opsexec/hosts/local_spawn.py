"""Starting one local process: by vfork where nothing may hang, by the C library's `posix_spawn`, or by `subprocess`.

`posix_spawn` lets the interpreter go on meanwhile. Python's own `os.posix_spawn` can't change the working directory;
glibc >= 2.34 can, and can close what the child must not inherit (posix_spawn_file_actions_addchdir_np,
posix_spawn_file_actions_addclosefrom_np). `subprocess.Popen` takes as long, and tells which step of a start failed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol

from opsexec.far.message import as_bytes, as_text
from opsexec.hosts.local_vfork import vfork_exec

_SETSIGDEF = 0x04
_SETSID = 0x80
"""POSIX_SPAWN_* flags as <spawn.h> of glibc has them."""
_OPAQUE = 1024
"""Bytes for posix_spawnattr_t (336), posix_spawn_file_actions_t (80) and sigset_t (128) of glibc, with room."""
_DEFAULTED = (
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD
)  # fmt: skip
"""Signals that a program does not expect to find ignored: Python ignores the first two (`subprocess` restores those),
and a caller that was started in a shell's background the next two."""

Streams = tuple[int, int, int]
"""The descriptors that become the program's stdin, stdout and stderr."""


class Child(Protocol):
    """A started process that this process reaps.

    Both raise ChildProcessError where its status is lost: another part of this program took it, or ignores SIGCHLD.
    """

    pid: int

    def wait(self) -> int:
        """Wait for its end; its exit code, or minus the signal's number."""

    def poll(self) -> int | None:
        """As `wait`, but None while it runs."""


class SpawnedChild:
    """As `Child`, by waitpid(2)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def wait(self) -> int:
        """As `Child.wait`."""
        status = self._reap(0)
        assert status is not None
        return status

    def poll(self) -> int | None:
        """As `Child.poll`."""
        return self._reap(os.WNOHANG)

    def _reap(self, flags: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, flags)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status


def start(
    program: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    cwd: str,
    streams: Streams,
    *,
    may_hang: bool = True,
) -> Child:
    """Start a program in a session of its own, with these three descriptors and no others.

    `may_hang`: its file or directory may be one that the kernel waits for, as of a server that is away; where they
    aren't, the start takes half as long. Raises OSError, whose filename is the working directory when that is what
    can't be entered, and ValueError for a word with a NUL in it.
    """
    path, directory = as_bytes(program), as_bytes(cwd)
    words = [as_bytes(word) for word in argv]
    settings = [as_bytes(f"{name}={value}") for name, value in environment.items()]
    if "=" in "".join(environment):
        raise ValueError("illegal environment variable name")
    if b"\0" in b"".join((path, directory, *words, *settings)):  # C would take what stands before it
        raise ValueError("embedded null byte")
    if min(streams) > 2:
        for find in (_library,) if may_hang else (vfork_exec, _library):
            way = find()
            pid = 0 if way is None else way.start(path, words, settings, directory, streams)
            if pid:
                return SpawnedChild(pid)
    try:
        process = subprocess.Popen(  # it also tells which step of a start failed: the others give one number for all
            words,
            executable=path,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            cwd=directory,
            env={as_bytes(name): as_bytes(value) for name, value in environment.items()},
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        if isinstance(error.filename, bytes):
            error.filename = as_text(error.filename)
        raise
    process.returncode = 0  # not Popen's to wait for: of a status that is lost, it would say 0
    return SpawnedChild(process.pid)


class _Library:
    """glibc's posix_spawn, and the attributes that every start has in common."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        pointer, descriptor = ctypes.c_void_p, ctypes.c_int
        self._spawn = library.posix_spawn
        self._spawn.argtypes = [ctypes.POINTER(ctypes.c_int), ctypes.c_char_p, *[pointer] * 4]
        self._init = library.posix_spawn_file_actions_init
        self._init.argtypes = [pointer]
        self._destroy = library.posix_spawn_file_actions_destroy
        self._destroy.argtypes = [pointer]
        self._chdir = library.posix_spawn_file_actions_addchdir_np
        self._chdir.argtypes = [pointer, ctypes.c_char_p]
        self._dup2 = library.posix_spawn_file_actions_adddup2
        self._dup2.argtypes = [pointer, descriptor, descriptor]
        self._close_from = library.posix_spawn_file_actions_addclosefrom_np
        self._close_from.argtypes = [pointer, descriptor]
        self._attributes = ctypes.create_string_buffer(_OPAQUE)
        defaulted = ctypes.create_string_buffer(_OPAQUE)
        library.sigemptyset(defaulted)
        for number in _DEFAULTED:
            library.sigaddset(defaulted, number)
        failed = (
            library.posix_spawnattr_init(self._attributes)
            or library.posix_spawnattr_setflags(self._attributes, ctypes.c_short(_SETSID | _SETSIGDEF))
            or library.posix_spawnattr_setsigdefault(self._attributes, defaulted)
        )
        if failed:
            raise OSError(failed, os.strerror(failed))

    def start(
        self, program: bytes, words: Sequence[bytes], settings: Sequence[bytes], cwd: bytes, streams: Streams
    ) -> int:
        """Return the new process's id; 0 when it could not be started, and then nothing was."""
        actions = ctypes.create_string_buffer(_OPAQUE)
        pid = ctypes.c_int()
        if self._init(actions):
            return 0
        try:
            if (
                self._chdir(actions, cwd)
                or self._dup2(actions, streams[0], 0)
                or self._dup2(actions, streams[1], 1)
                or self._dup2(actions, streams[2], 2)
                or self._close_from(actions, 3)
                or self._spawn(ctypes.byref(pid), program, actions, self._attributes, _vector(words), _vector(settings))
            ):
                return 0
        finally:
            self._destroy(actions)
        return pid.value


def _vector(texts: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(texts) + 1))(*texts, None)


@cache
def _library() -> _Library | None:
    """Return the C library's posix_spawn, None where it can't do what is needed here."""
    if sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"):
        return None
    try:
        return _Library()
    except (AttributeError, OSError):  # an older glibc
        return None
