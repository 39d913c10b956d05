"""stdout as a text file whose writers never wait: a pager that isn't scrolled must not stop the event loop."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from queue import SimpleQueue

from opsexec.cli.ending import OutputFailed
from opsexec.cli.streams import write_all

LAST_WAIT_S = 0.5
"""How long an interrupted command waits for a reader who doesn't read."""


class Unblocked(io.TextIOBase):
    """Takes text at once and writes it in a thread; the first failure is raised by the next write."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._texts: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._failure: OSError | None = None
        threading.Thread(target=self._serve, name="stdout", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in typeshed, which nothing here sets
        """UTF-8, whatever the locale: that is what `write` makes of text."""
        return "utf-8"

    def isatty(self) -> bool:
        """True when a person reads it."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """True: that is what it is for."""
        return True

    def write(self, text: str) -> int:
        """Queue text; raises BrokenPipeError when the reader went, OutputFailed when it can't be written."""
        self._raise()
        self._texts.put(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is written as soon as the reader takes it."""

    async def drain(self, timeout_s: float | None = None) -> None:
        """Wait until all is written, `timeout_s` seconds at most (None: as long as it takes); raises as `write`."""
        written = threading.Event()
        self._texts.put(written)
        deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        pause_s = 0.0005
        while not written.is_set():
            if deadline is not None and asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
        self._raise()

    def _raise(self) -> None:
        if isinstance(self._failure, BrokenPipeError):
            raise self._failure
        if self._failure is not None:
            raise OutputFailed(self._failure)

    def _serve(self) -> None:
        while True:
            text = self._texts.get()
            if isinstance(text, threading.Event):
                text.set()
            elif self._failure is None:
                try:
                    write_all(self._fd, text)
                except OSError as error:
                    self._failure = error
