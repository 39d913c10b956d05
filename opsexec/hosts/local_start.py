"""Starting one local program on pipes: everything up to its first instruction, in whichever thread is asked to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from opsexec.far.launch import Launch
from opsexec.far.message import FarError
from opsexec.far.spawn import pipes
from opsexec.far.tree_end import end_now
from opsexec.hosts.local_spawn import Child, Streams, start

SYSTEM_PLACES = ("/usr/", "/bin/", "/sbin/")
"""Where programs stand without which this machine would do nothing else either."""

BLOCK = 64 << 10
"""What a pipe holds (pipe(7)): asking for more only allocates more."""
WIDE_BLOCK = 256 << 10
"""What the pipe of a program that fills one is made to hold: a fourth of the turns around the loop for much output."""


class Started(NamedTuple):
    """A program that runs, and our ends of its pipes, none of which blocks. `stdin` is -1 where it was given none."""

    child: Child
    pidfd: int
    stdin: int
    stdout: int
    stderr: int


class Start:
    """One program about to be started, with its pipes open: `spawn`, in any thread, then `took` or `close`.

    `kept`: what it inherits of this process's environment. Raises FarError when it isn't there to be started.
    """

    def __init__(self, launch: Launch, kept: Mapping[str, str]) -> None:
        self.run = launch.run
        self._launch = launch
        self._kept = kept
        self._program = launch.program()
        wants_input = launch.streams_stdin or bool(launch.stdin)
        try:
            null = -1 if wants_input else _null()
            (self._out, stdout), (self._err, stderr), *third = pipes(3 if wants_input else 2)
        except OSError as error:
            raise self.explained(error) from error
        stdin, self._in = third[0] if third else (null, -1)
        self._streams: Streams = (stdin, stdout, stderr)
        self._theirs = (stdin, stdout, stderr) if third else (stdout, stderr)

    def spawn(self) -> Child:
        """Start it; blocks until it runs (about 0.3 ms), which is the kernel's and its file system's to say."""
        launch = self._launch
        environment = launch.environment(self._kept)
        home = self._kept.get("HOME") or "/"
        may_hang = bool(launch.cwd) or not self._program.startswith(SYSTEM_PLACES)
        try:
            return start(self._program, launch.argv, environment, launch.cwd or home, self._streams, may_hang=may_hang)
        except OSError as error:
            if launch.cwd or home == "/" or error.filename != home:
                raise
        return start(self._program, launch.argv, environment, "/", self._streams)  # a home that can't be entered

    def spawn_or_close(self) -> Child:
        """As `spawn`; where that raises, this is closed."""
        try:
            return self.spawn()
        except BaseException:  # nobody else knows its pipes yet
            self.close()
            raise

    def took(self, child: Child) -> Started:
        """Return the program that was started; raises FarError when it can't be watched, and then it is ended."""
        try:
            pidfd = os.pidfd_open(child.pid)
        except OSError as error:
            self.close()
            end(child, self.run)
            raise self.explained(error) from error
        self._close(self._theirs)
        for fd in (self._out, self._err, self._in):
            if fd >= 0:
                os.set_blocking(fd, False)
        return Started(child, pidfd, self._in, self._out, self._err)

    def close(self) -> None:
        """Let go of the pipes: nothing was started, or nobody wants it."""
        self._close(self._theirs)
        self._close((self._out, self._err, self._in))

    def explained(self, error: OSError) -> FarError:
        """Return what an error of `spawn` says of this start."""
        cwd = self._launch.cwd
        if cwd and error.filename == cwd:
            return FarError("no_cwd", f"can't enter {cwd}: {os.strerror(error.errno or 0)}", cwd)
        return FarError("no_start", f"can't start {self._program}: {os.strerror(error.errno or 0)}", self._program)

    @staticmethod
    def _close(fds: tuple[int, ...]) -> None:
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def end(child: Child, run: str) -> int:
    """End the tree of a process that was just started, and reap it; returns how many of it could not be ended.

    Blocks for some ms; for two seconds where a program became another user, whom this one may not signal.
    """
    survivors = end_now([(run, child.pid)], 0.0)
    with suppress(ChildProcessError):  # another part of this process took its status: it is reaped
        if survivors:
            child.poll()
        else:
            child.wait()
    return survivors


def widen(pipe: int) -> int:
    """Let a pipe hold more and return how much; it stays as it is for a user whose pipes hold too much (pipe(7))."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, WIDE_BLOCK)
    except OSError:
        return BLOCK


@cache
def _null() -> int:
    """Return this process's open /dev/null, the stdin of programs that are given none."""
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
