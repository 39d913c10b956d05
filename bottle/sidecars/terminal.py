"""Gives one program a terminal of its own, inside the bottle: nobody's real terminal is ever in the agent's reach.

Runs as `python3 -I -S -c <this file> COLUMNS ROWS TERM -- ARGV...` with frames on stdin: a letter, 4 bytes of length,
and as many bytes: `d` keys, `r` columns and rows of 2 bytes each. The end of stdin hangs up. What the program writes
goes to stdout as it is. Standard library alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

BLOCK = 65536
MAX_WAITING = 262144
"""Bytes of keys that the program hasn't taken; more are left on stdin until it does."""
NOT_STARTED = 127
DRAIN_S = 1.0
HANG_UP_S = 10.0
"""How long a program has to end once it was hung up on, before it is ended: whoever left waits for that."""


def resize(fd: int, columns: int, rows: int) -> None:
    """Set a terminal's size, which tells whoever is in its foreground (tty_ioctl(4), TIOCSWINSZ)."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def start(argv: list[str], columns: int, rows: int, term: str) -> tuple[int, int]:
    """Start the program on a new terminal; returns its pid and the terminal's other end."""
    leader, follower = pty.openpty()
    resize(leader, columns, rows)
    pid = os.fork()
    if pid:
        os.close(follower)
        os.set_blocking(leader, False)
        return pid, leader
    os.setsid()
    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(follower, fd)
    os.closerange(3, 64)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, {**os.environ, "TERM": term})
    except OSError as error:
        text = f"sandbox: {error.filename or argv[0]}: {error.strerror}\r\n"
        os.write(2, os.fsencode(text))
        os._exit(NOT_STARTED)


class Relay:
    """Carries keys in and output out until the program ends."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.said = b""
        self.keys = b""
        self.listening = True

    def take(self) -> None:
        """Read frames; at their end the terminal is hung up by whoever closes `leader`."""
        data = os.read(0, BLOCK)
        if not data:
            self.listening = False
            return
        self.said += data
        while len(self.said) >= 5:
            size = int.from_bytes(self.said[1:5], "big")
            if len(self.said) < 5 + size:
                return
            kind, body, self.said = self.said[:1], self.said[5 : 5 + size], self.said[5 + size :]
            if kind == b"d":
                self.keys += body
            elif kind == b"r" and size == 4:
                resize(self.leader, *struct.unpack(">HH", body))

    def show(self) -> bool:
        """Hand on a block of output; False at its end."""
        try:
            data = os.read(self.leader, BLOCK)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno == errno.EIO:  # nobody has the terminal open any more
                return False
            raise
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        return bool(data)

    def type(self) -> None:
        """Hand on keys, as many as the terminal takes."""
        try:
            self.keys = self.keys[os.write(self.leader, self.keys) :]
        except BlockingIOError:
            return

    def run(self, ended: int) -> None:
        """Carry until the program ended (`ended` can be read then) and its output is out, or the caller hung up."""
        over = False
        while self.listening:
            readers = [self.leader] + ([] if over else [ended])
            if len(self.keys) < MAX_WAITING:
                readers.append(0)
            writers = [self.leader] if self.keys else []
            ready, writable, _ = select.select(readers, writers, [], DRAIN_S if over else None)
            if over and self.leader not in ready:
                return
            if ended in ready:
                over = True
            if 0 in ready:
                self.take()
            if writable:
                self.type()
            if self.leader in ready and not self.show():
                return


def end(pid: int) -> None:
    """End a program that goes on though nobody is there; it is left for its parent to be waited for."""
    over = time.monotonic() + HANG_UP_S
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > over:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def main(argv: list[str]) -> int:
    """Run a program on a terminal; returns its status, 128 and the number for a signal."""
    columns, rows, term = int(argv[0]), int(argv[1]), argv[2]
    ended, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(telling)
    pid, leader = start(argv[4:], columns, rows, term)
    relay = Relay(leader)
    try:
        relay.run(ended)
    except (BrokenPipeError, ConnectionError):
        os.close(leader)
        return NOT_STARTED
    os.close(leader)
    if not relay.listening:
        end(pid)
    _, status = os.waitpid(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
