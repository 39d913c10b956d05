"""The process that attends one detached run: it starts the program, keeps its output, and writes down how it ended.

A process of its own, in a session of its own, so that the agent may end, crash or be updated while the run goes on. The
standard library and the far half alone: it starts in about 40 ms and stays small. It holds the run's lock for as long
as it lives; a run whose lock is free and that has no status has lost its runner.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import selectors
import signal
import struct
import subprocess
import sys
import time

from opsexec.far.drain import SILENCE_S, Drain
from opsexec.far.frames import GRACE_S
from opsexec.far.launch import Launch, kept_environment
from opsexec.far.message import FarError, unpack_message
from opsexec.far.tree_end import TreeEnd

BLOCK = 64 << 10
OUT, ERR = 0x11, 0x12
"""As in opsexec.wire, which this process doesn't load; a test holds the two together."""

STATUS_BYTES = 4096
"""Kept for the status from the beginning on: how a run ended can be written down on a disk that is full by then."""

_HEAD = struct.Struct(">BI")


class Runner:
    """One run. `quota`: bytes its log may have; `timeout_s`: seconds, 0 = none."""

    def __init__(self, directory: str, launch: Launch, user: str, quota: int, timeout_s: float) -> None:
        self._directory = directory
        self._launch = launch
        self._user = user
        self._quota = quota
        self._begun = time.monotonic()
        self._deadline = self._begun + timeout_s if timeout_s else None
        self._log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._kept = 0
        self._counts = [0, 0]
        self._hash = hashlib.sha256()
        self._error: list[str] = []
        self._drain: Drain | None = None
        self._quiet_at: float | None = None
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> None:
        """Run the program to its end, and write the status."""
        signal.signal(signal.SIGTERM, lambda number, frame: os.write(self._waker, b"x"))
        self._reserve()
        self._write("runner", f"{os.getpid()} {_start_time()}")
        status: int | None = None
        try:
            with self._start() as program:
                status = self._attend(program)
        except FarError as error:
            self._error = [error.code, error.text, *error.details]
        self._write_status(status)

    def _start(self) -> subprocess.Popen[bytes]:
        launch = self._launch
        program = launch.program()
        kept = kept_environment()
        user: int | None = None
        group: int | None = None
        groups: list[int] | None = None
        if self._user:
            entry = pwd.getpwnam(self._user)
            kept |= {"HOME": entry.pw_dir, "USER": self._user, "LOGNAME": self._user, "SHELL": entry.pw_shell}
            user, group = entry.pw_uid, entry.pw_gid
            groups = os.getgrouplist(self._user, entry.pw_gid)
        home = kept.get("HOME", "/")
        cwd = launch.cwd or (home if os.path.isdir(home) else "/")
        try:
            started = subprocess.Popen(
                list(launch.argv),
                executable=program,
                stdin=subprocess.PIPE if launch.stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=launch.environment(kept),
                start_new_session=True,
                bufsize=0,
                user=user,
                group=group,
                extra_groups=groups,
            )
        except OSError as error:
            code = "no_cwd" if error.filename == cwd else "no_start"
            raise FarError(code, f"can't start {program}: {os.strerror(error.errno or 0)}", program) from error
        return started

    def _attend(self, program: subprocess.Popen[bytes]) -> int:
        assert program.stdout is not None
        assert program.stderr is not None
        exited = os.pidfd_open(program.pid)
        selector = self._selector
        open_streams = {program.stdout.fileno(): 0, program.stderr.fileno(): 1}
        for fd in (*open_streams, exited, self._wake):
            os.set_blocking(fd, False) if fd in open_streams else None
            selector.register(fd, selectors.EVENT_READ)
        waiting = self._launch.stdin
        if program.stdin is not None:
            os.set_blocking(program.stdin.fileno(), False)
            selector.register(program.stdin.fileno(), selectors.EVENT_WRITE)
        status: int | None = None
        while open_streams or status is None:
            if self._error or self._is_over(status, open_streams):
                break
            for key, _ in selector.select(self._wait()):
                fd = key.fd
                if fd in open_streams:
                    if not self._take(fd, open_streams[fd]):
                        selector.unregister(fd)
                        del open_streams[fd]
                elif fd == exited:
                    selector.unregister(exited)
                    status = program.wait()
                    self._drain = Drain(open_streams)
                    self._quiet_at = time.monotonic() + SILENCE_S
                elif fd == self._wake:
                    self._error = ["ended", "the run was ended on request"]
                elif program.stdin is not None:
                    waiting = self._give(program.stdin.fileno(), waiting)
                    if not waiting:
                        selector.unregister(fd)
                        program.stdin.close()
        os.close(exited)
        if self._error:
            self._end_tree(program.pid)
            status = program.wait()
        return program.wait() if status is None else status

    def _wait(self) -> float | None:
        ends = [at for at in (self._deadline if self._drain is None else None, self._quiet_at) if at is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _is_over(self, status: int | None, open_streams: dict[int, int]) -> bool:
        """True when nothing more is waited for: a child that lives on may hold the pipes of a program that ended."""
        now = time.monotonic()
        if status is not None:
            assert self._drain is not None
            assert self._quiet_at is not None
            if now >= self._quiet_at:
                wait = self._drain.wait(open_streams)
                self._quiet_at = now + wait if wait else None
            return self._quiet_at is None
        if self._deadline is not None and now >= self._deadline:
            self._error = ["timeout", f"no end after {self._deadline - self._begun:g} s; its process tree was ended"]
            return True
        return False

    def _take(self, fd: int, stream: int) -> bool:
        """Keep a block of output; False at the end of the stream. Past the quota, or a full disk, the run is ended."""
        try:
            data = os.read(fd, BLOCK)
        except BlockingIOError:
            return True
        if not data:
            return False
        if self._drain is not None:
            self._drain.heard(fd, len(data))
        if self._kept + _HEAD.size + len(data) > self._quota:
            self._error = ["limit", f"output is over the limit of {self._quota} bytes; its process tree was ended"]
            return True
        frame = _HEAD.pack(OUT if stream == 0 else ERR, len(data)) + data
        try:
            written = os.write(self._log, frame)
            if written < len(frame):
                os.ftruncate(self._log, self._kept)
                raise OSError(28, "No space left on device")
        except OSError as error:
            self._error = ["no_space", f"its output can't be kept: {error.strerror}; its process tree was ended"]
            return True
        self._kept += len(frame)
        self._counts[stream] += len(data)
        if stream == 0:
            self._hash.update(data)
        return True

    @staticmethod
    def _give(fd: int, data: bytes) -> bytes:
        """Write what the program takes of its input; returns the rest."""
        try:
            return data[os.write(fd, data) :]
        except BlockingIOError:
            return data
        except BrokenPipeError:
            return b""

    def _end_tree(self, leader: int) -> None:
        end = TreeEnd(self._launch.run, leader, GRACE_S)
        while (wait := end.step()) is not None:
            time.sleep(wait)
        if end.survivors:
            self._error[1] += f"; {end.survivors} processes could not be ended"

    def _write_status(self, status: int | None) -> None:
        value = {
            "status": status,
            "error": self._error,
            "duration_s": round(time.monotonic() - self._begun, 6),
            "stdout_bytes": self._counts[0],
            "stderr_bytes": self._counts[1],
            "digest": "sha256:" + self._hash.hexdigest(),
            "log_bytes": self._kept,
        }
        self._write("status", json.dumps(value))

    def _reserve(self) -> None:
        fd = os.open(f"{self._directory}/status.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(fd, bytes(STATUS_BYTES))
        os.close(fd)

    def _write(self, name: str, text: str) -> None:
        """Write a file that is there whole or not at all, into the room that is kept for it."""
        temporary = f"{self._directory}/{name}.new"
        data = text.encode()
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(fd, data)
        os.ftruncate(fd, len(data))
        os.fsync(fd)
        os.close(fd)
        os.rename(temporary, f"{self._directory}/{name}")


def _start_time() -> str:
    """Return when this process began, as proc(5) has it in the 22nd field of stat: with the pid it names us alone."""
    with open("/proc/self/stat", "rb") as file:
        return file.read().rpartition(b") ")[2].split()[19].decode()


def main(directory: str) -> None:
    """Attend the run of a directory; what to run comes on stdin, since it may hold secrets."""
    launch, user, quota, timeout = unpack_message(sys.stdin.buffer.read())
    os.close(0)
    os.open("/dev/null", os.O_RDONLY)
    os.chdir("/")
    Runner(directory, Launch.parse(launch), user.decode(), int(quota), float(timeout)).run()
