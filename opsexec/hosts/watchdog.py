"""The caller's side of the watchdog: one a process, started with its first local run, fed two short lines a run."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from pathlib import Path

from opsexec.errors import HostUnsuitable


class Watchdog:
    """A child that ends this process's local runs if this process dies without a chance to do so itself (SIGKILL)."""

    _of_this_process: Watchdog | None = None

    def __init__(self) -> None:
        root = str(Path(__file__).parent.parent.parent)
        code = f"import sys; sys.path.insert(0, {root!r}); from opsexec.far.watchdog import main; main()"
        reading, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={"PATH": os.defpath},
            )
        finally:
            os.close(reading)
        self._owner = os.getpid()
        atexit.register(self.close)

    @classmethod
    def get(cls) -> Watchdog:
        """Return this process's watchdog, started on first use; a forked child gets one of its own."""
        current = cls._of_this_process
        if current is None or current._owner != os.getpid():
            current = cls._of_this_process = Watchdog()
        return current

    def open(self, run: str, pid: int = 0) -> None:
        """A run is about to begin (pid 0: its marker alone tells it), or has begun. Raises HostUnsuitable when the watchdog is gone: its promise could not be kept."""
        try:
            os.write(self._pipe, f"+{run} {pid}\n".encode())
        except BrokenPipeError as error:
            type(self)._of_this_process = None
            raise HostUnsuitable(
                "the watchdog process that ends local runs was killed", hint="run again: a new one is started"
            ) from error

    def done(self, run: str) -> None:
        """A run is over, and what it left behind on purpose may live on."""
        try:
            os.write(self._pipe, f"-{run}\n".encode())
        except BrokenPipeError:
            type(self)._of_this_process = None

    def close(self) -> None:
        """Let the watchdog go."""
        if self._owner == os.getpid() and type(self)._of_this_process is self:
            type(self)._of_this_process = None
            os.close(self._pipe)
            self._process.wait(timeout=5)
