"""The caller's own terminal while it shows another: raw mode, its size, and putting everything back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import termios
import tty
from collections.abc import Iterator

from opsexec.cli.drive import before_leaving

_MODE = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])")
_LONGEST = 48
_OFF_BY_DEFAULT = frozenset(
    (1, 9, 47, 66, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1048, 1049, 2004, 2026)
)
_CURSOR = 25
"""DECTCEM: shown by default. The modes are those of xterm's control sequences (DECSET, DECRST)."""


class Modes:
    """Watches which terminal modes a program switches, so that those it leaves behind can be switched back."""

    def __init__(self) -> None:
        self._rest = b""
        self._changed: dict[int, bool] = {}

    def watch(self, data: bytes) -> None:
        """Take a block of output; sequences that are cut at its end are seen with the next."""
        data = self._rest + data
        for match in _MODE.finditer(data):
            for number in match[1].split(b";"):
                if number:
                    self._changed[int(number)] = match[2] == b"h"
        cut = data.rfind(b"\x1b", max(0, len(data) - _LONGEST))
        self._rest = data[cut:] if cut >= 0 and not _MODE.match(data, cut) else b""

    def undo(self) -> bytes:
        """Return what puts the terminal back as it was: the screen, the cursor, mouse and paste modes, colours."""
        undone = [n for n, on in self._changed.items() if on and n in _OFF_BY_DEFAULT]
        text = b"".join(b"\x1b[?%dl" % number for number in reversed(undone))
        if self._changed.get(_CURSOR) is False:
            text += b"\x1b[?25h"
        self._changed.clear()
        return text + b"\x1b[0m" if text else b""


@contextlib.contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Pass every key on as it is typed; the terminal's settings come back however this ends."""
    before = termios.tcgetattr(fd)

    def put_back() -> None:
        with contextlib.suppress(termios.error):  # the terminal is gone: there is nothing to put back
            termios.tcsetattr(fd, termios.TCSANOW, before)

    before_leaving.append(put_back)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        before_leaving.remove(put_back)
        put_back()


def size_of(fd: int) -> tuple[int, int]:
    """Return a terminal's columns and rows, at most MAX_SIDE of each; 80 x 24 where it doesn't say."""
    from opsexec.recording import MAX_SIDE

    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return min(size.columns or 80, MAX_SIDE), min(size.lines or 24, MAX_SIDE)


async def keys(fd: int) -> bytes:
    """Return the next keys that are typed; empty when the terminal is gone."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[bytes] = loop.create_future()

    def readable() -> None:
        loop.remove_reader(fd)
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            loop.add_reader(fd, readable)
            return
        except OSError:  # EIO: the terminal was hung up
            data = b""
        if not typed.done():
            typed.set_result(data)

    loop.add_reader(fd, readable)
    try:
        return await typed
    finally:
        loop.remove_reader(fd)


class Escape:
    """Finds `~.` at the beginning of a line, as in ssh: how a person leaves a terminal that answers no more."""

    def __init__(self) -> None:
        self._at_start = True
        self._tilde = False

    def passes(self, data: bytes) -> bytes | None:
        """Return what is to be sent of the keys typed; None = leave."""
        sent = bytearray()
        for key in data:
            if self._tilde:
                self._tilde = False
                if key == ord("."):
                    return None
                if key != ord("~"):
                    sent.append(ord("~"))
                sent.append(key)
                self._at_start = key in b"\r\n"
            elif self._at_start and key == ord("~"):
                self._tilde = True
            else:
                sent.append(key)
                self._at_start = key in b"\r\n"
        return bytes(sent)
