"""The caller's side of the watchdog: one a process, started with its first local run, told of each by shared memory."""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from opsexec.errors import HostUnsuitable
from opsexec.far.watchdog import MARK_BYTES, SLOT, SLOTS

_FREE = bytes(SLOT.size)
END_S = 5.0
"""Seconds it gets to end once it is let go."""


class Watchdog:
    """A child that ends this process's local runs if this process dies without a chance to do so itself (SIGKILL)."""

    _of_this_process: Watchdog | None = None
    _starting = threading.Lock()

    def __init__(self) -> None:
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            text = "this process ignores SIGCHLD, so that how a program ended would be lost"
            raise HostUnsuitable(text, hint="signal.signal(signal.SIGCHLD, signal.SIG_DFL) before the first local step")
        try:
            self._start()
        except OSError as error:
            what = f"the watchdog of local runs can't be started ({sys.executable}: {os.strerror(error.errno or 0)})"
            raise HostUnsuitable(what, hint="are there processes, memory and file descriptors left?") from error
        self._free = list(range(SLOTS - 1, -1, -1))
        self._owner = os.getpid()
        atexit.register(self.close)

    def _start(self) -> None:
        root = str(Path(__file__).parent.parent.parent)
        with ExitStack() as opened:
            memory = os.memfd_create("opsexec-runs", os.MFD_CLOEXEC)
            opened.callback(os.close, memory)
            os.ftruncate(memory, SLOT.size * SLOTS)
            code = f"import sys; sys.path.insert(0, {root!r}); from opsexec.far.watchdog import main; main({memory})"
            reading, writing = os.pipe()
            opened.callback(os.close, reading)
            with ExitStack() as kept:
                kept.callback(os.close, writing)
                self._table = kept.enter_context(mmap.mmap(memory, SLOT.size * SLOTS))
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-X", "utf8", "-c", code],
                    stdin=reading,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                    env={"PATH": os.defpath},
                    pass_fds=(memory,),
                )
                kept.pop_all()
            self._pipe = writing

    @classmethod
    def get(cls) -> Watchdog:
        """Return this process's watchdog, started on first use; a forked child gets one of its own."""
        current = cls._of_this_process
        if current is None or current._owner != os.getpid() or current._process.poll() is not None:
            with cls._starting:
                current = cls._of_this_process = Watchdog()
        return current

    def open(self, run: str) -> int:
        """A run is about to begin; returns its slot. Raises HostUnsuitable when all are taken, ValueError: long id."""
        if len(run) > MARK_BYTES:
            raise ValueError(f"a run's mark is over {MARK_BYTES} bytes")
        try:
            slot = self._free.pop()
        except IndexError:
            raise HostUnsuitable(f"{SLOTS} local runs are under way at once", hint="wait for some of them") from None
        self.began(slot, run, 0)
        return slot

    def began(self, slot: int, run: str, pid: int) -> None:
        """The run's first process is this one."""
        SLOT.pack_into(self._table, slot * SLOT.size, pid, run.encode("ascii"))

    def done(self, slot: int) -> None:
        """A run is over, and what it left behind on purpose may live on."""
        self._table[slot * SLOT.size : (slot + 1) * SLOT.size] = _FREE
        self._free.append(slot)

    def close(self) -> None:
        """Let the watchdog go."""
        if self._owner == os.getpid() and type(self)._of_this_process is self:
            type(self)._of_this_process = None
            os.close(self._pipe)
            for number in (signal.SIGCONT, signal.SIGKILL):  # one that a run of ours stopped doesn't see its pipe's end
                self._process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(END_S)
                    break
