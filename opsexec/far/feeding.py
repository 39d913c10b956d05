"""What programs are given to read: as they take it, and then its end."""

from __future__ import annotations

import os

from opsexec.far import frames
from opsexec.far.frames import NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable

    from opsexec.far.run import Run

POLLOUT = 4
"""select.POLLOUT: the session has that module anyway, this one needs no more of it than the number."""


class Feeding:
    """The stdin of every run of a session. `poll`: the session's; `send`: what queues a frame for the caller."""

    def __init__(self, poll: select.poll, send: Callable[[int, int, bytes], None]) -> None:
        self._poll = poll
        self._send = send
        self._waiting = {}  # type: dict[int, Run]

    def run_of(self, fd: int) -> Run | None:
        """Return the run that waits for room in this pipe."""
        return self._waiting.get(fd)

    def give(self, run: Run) -> None:
        """Write waiting input into the program; closes its stdin after the last byte."""
        if run.stdin < 0:
            run.input.clear()
            return
        try:
            while run.input:
                block = run.input[0]
                done = os.write(run.stdin, block)
                run.taken += done
                if done < len(block):
                    run.input[0] = block[done:]
                else:
                    run.input.popleft()
        except BlockingIOError:
            self._waiting[run.stdin] = run
            self._poll.register(run.stdin, POLLOUT)
        except OSError:  # the program closed its stdin or is gone: the rest of the input has no reader
            run.input.clear()
            run.eof_input = True
        if run.launch.streams_stdin and (run.taken >= frames.INPUT_WINDOW // 4 or run.eof_input):
            self._send(frames.TAKEN, run.ref, NUMBER.pack(run.taken))
            run.taken = 0
        if not run.input:
            self._wait_no_more(run)
            if run.eof_input:
                self.close(run)

    def close(self, run: Run) -> None:
        """End a program's input."""
        if run.stdin >= 0:
            self._wait_no_more(run)
            if run.terminal >= 0 and run.status is None:
                _end_on_terminal(run)
            os.close(run.stdin)
            run.stdin = -1

    def _wait_no_more(self, run: Run) -> None:
        if self._waiting.pop(run.stdin, None) is not None:
            self._poll.unregister(run.stdin)


def _end_on_terminal(run: Run) -> None:
    """A terminal has no end to close: the program is told by ^D, if it takes any input at all."""
    try:
        os.write(run.stdin, b"\x04")
    except OSError:  # it hung up, or takes nothing
        return
