"""A person at a terminal: starts `opsexec` on a pseudo-terminal, types, reads what is on the screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.integration.cli_runs import Cli

DEADLINE_S = 20.0


class Person:
    """Types on the terminal and sees all that was printed so far in `screen`."""

    def __init__(self, main: int, other: int, process: subprocess.Popen[bytes]) -> None:
        self.main = main
        self.other = other
        self.process = process
        self.screen = b""

    def types(self, text: str | bytes) -> None:
        os.write(self.main, text if isinstance(text, bytes) else text.encode())

    def sees(self, pattern: str, deadline_s: float = DEADLINE_S) -> re.Match[bytes]:
        """Wait until the screen matches; what came before the match's end counts as read."""
        end = time.monotonic() + deadline_s
        while True:
            match = re.search(pattern.encode("latin-1"), self.screen)
            if match:
                self.screen = self.screen[match.end() :]
                return match
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} not on the screen:\n{self.screen.decode(errors='replace')}"
            self._read(min(left, 0.5))

    def _read(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self.main], [], [], wait_s)
        if not ready:
            return False
        self.screen += os.read(self.main, 65536)
        return True

    def resizes(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self) -> list[object]:
        """The terminal's settings, as tcgetattr(3) has them."""
        return list(termios.tcgetattr(self.other))

    def closes_the_window(self) -> None:
        """Hang the terminal up, as closing its window does."""
        os.close(self.other)
        os.close(self.main)
        self.main = self.other = -1

    def leaves(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the command to end, reading on; return its exit code."""
        end = time.monotonic() + deadline_s
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running:\n{self.screen.decode(errors='replace')}"
            self._read(0.02)
        while self._read(0):
            pass
        return self.process.returncode


@contextlib.contextmanager
def at_terminal(cli: Cli, *words: object, columns: int = 90, rows: int = 30) -> Iterator[Person]:
    """Start `opsexec` on a terminal of its own."""
    with on_terminal(cli.argv(*words), cwd=cli.home, env=cli.env, columns=columns, rows=rows) as person:
        yield person


@contextlib.contextmanager
def on_terminal(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], columns: int = 90, rows: int = 30
) -> Iterator[Person]:
    """Start a program on a terminal of its own, which stays open after the program has ended."""
    main, other = os.openpty()
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    person = Person(main, other, process)
    person.resizes(columns, rows)
    try:
        yield person
    finally:
        process.kill()
        process.wait(10)
        for fd in (person.main, person.other):
            if fd >= 0:
                os.close(fd)
