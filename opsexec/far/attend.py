"""Work in a child process that ends, with all it started, as soon as the caller is gone.

rsync itself notices that only when it next reads or writes, which on a large tree may be minutes later.
"""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # the module behind `signal`, which costs 5 ms to load

NOTICE_S = 0.2
"""Seconds in which a worker may notice by itself that its caller is gone: it tidies up best then."""
GRACE_S = 0.5
"""Seconds between SIGTERM and SIGKILL: rsync sleeps 0.4 s before it heeds a signal (main.c, sig_int)."""
ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def attend(run: str, work: Callable[[], None]) -> None:
    """Do `work` in a child, which may become another program, and exit with its status. Never returns.

    The caller is gone when nobody reads this process's stdout any more.
    """
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    ended = []  # type: list[int]
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in ENDINGS:
        signal.signal(number, lambda number, frame: ended.append(number))
    signal.set_wakeup_fd(waker)
    child = os.fork()
    if child == 0:
        _become_worker(wake, waker)
        work()
        os._exit(0)
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(1, 0)  # reports an error or a hang-up alone
    give_up_at = None  # type: float | None
    while True:
        ready = poll.poll(None if give_up_at is None else max(0, int((give_up_at - time.monotonic()) * 1000) + 1))
        for fd, _ in ready:
            if fd == wake:
                _drain(wake)
            else:
                poll.unregister(1)
                give_up_at = time.monotonic() + NOTICE_S
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            if os.WIFSIGNALED(status):
                _end_tree(run, child)
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
        if ended or (give_up_at is not None and time.monotonic() >= give_up_at):
            _end_tree(run, child)
            os._exit(128 + signal.SIGHUP)


def _become_worker(wake: int, waker: int) -> None:
    """A session of its own: that is how the tree is found again. Everything else as a new process has it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in ENDINGS:
        signal.signal(number, signal.SIG_DFL)
    os.close(wake)
    os.close(waker)
    os.setsid()


def _drain(wake: int) -> None:
    try:
        os.read(wake, 4096)
    except BlockingIOError:
        return


def _end_tree(run: str, leader: int) -> None:
    from opsexec.far.tree_end import end_now

    end_now([(run, leader)], GRACE_S)
