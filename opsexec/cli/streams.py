"""Bytes between hosts and the caller's own stdin, stdout and stderr, without ever stopping the event loop.

A pipe or terminal that isn't read blocks whoever writes to it. The loop must go on (it keeps sessions alive
and hears signals), so blocking reads and writes are done in a thread that doesn't hold up the process's end.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import stat
import threading
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from opsexec.cli.ending import OutputFailed, tell

if TYPE_CHECKING:
    from opsexec.executor import Stream

BLOCK = 64 << 10
MAX_LINE = 1 << 20
"""A line without end is passed on in pieces of this size."""

_STEERING = re.compile(rb"\x1b(?!\[[0-9;:]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]")
"""What a terminal obeys, but for tabs, newlines and colours."""

T = TypeVar("T")
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Aside:
    """A daemon thread that does blocking calls one after the other."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._name = name
        self._thread: threading.Thread | None = None

    async def do(self, call: Callable[[], T]) -> T:
        """Do it and return its answer; raises its OSError. Cancelling stops the wait, not the call."""
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            thread.start()
            self._thread = thread  # only now: where there was none to be had, the next call asks again
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put((loop, answer, call))
        return await answer

    def _serve(self) -> None:
        while True:
            loop, answer, call = self._jobs.get()
            value: Any = None
            failure: OSError | None = None
            try:
                value = call()
            except OSError as error:
                failure = error
            try:
                loop.call_soon_threadsafe(_settle, answer, value, failure)
            except RuntimeError:
                return  # the loop is closed: the process is ending, nobody waits any more


def _settle(answer: asyncio.Future[Any], value: Any, failure: OSError | None) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(value)
    else:
        answer.set_exception(failure)


class Output:
    """The caller's stdout and stderr as a LogSink; raises BrokenPipeError when a reader went, else OutputFailed."""

    def __init__(self, stdout: int = 1, stderr: int = 2) -> None:
        self._fds: dict[Stream, int] = {"stdout": stdout, "stderr": stderr}
        self._kinds = {fd: _kind(fd) for fd in (stdout, stderr)}
        self._turn = asyncio.Lock()
        self._aside = Aside("output")

    async def write(self, stream: Stream, data: bytes) -> None:
        """Write a whole block; blocks of several hosts never mix."""
        fd = self._fds[stream]
        async with self._turn:
            try:
                if self._is_free(fd, len(data)):
                    write_all(fd, data)
                else:
                    await self._aside.do(lambda: write_all(fd, data))
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputFailed(error) from error

    def on_terminal(self, stream: Stream) -> bool:
        """True when a person reads this stream as it comes."""
        return os.isatty(self._fds[stream])

    def _is_free(self, fd: int, size: int) -> bool:
        """True when writing can't block: a file, or a pipe with room for PIPE_BUF (pipe(7))."""
        kind = self._kinds[fd]
        if kind == "pipe" and size <= select.PIPE_BUF:
            _, ready, _ = select.select([], [fd], [], 0)
            return bool(ready)
        return kind == "file"


class Prefixed:
    """One host's output, each line with `name | ` before it, passed on in whole lines."""

    def __init__(self, name: str, output: Output) -> None:
        self._prefix = name.encode() + b" | "
        self._output = output
        self._rest: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}

    async def write(self, stream: Stream, data: bytes) -> None:
        """Pass on the lines that are whole."""
        data = self._rest[stream] + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) > MAX_LINE:
            data += b"\n"
            end = len(data)
        self._rest[stream] = data[end:]
        if end:
            await self._pass_on(stream, data[: end - 1])

    async def close(self) -> None:
        """Pass on what has no newline at its end."""
        for stream, rest in self._rest.items():
            if rest:
                self._rest[stream] = b""
                await self._pass_on(stream, rest)

    async def _pass_on(self, stream: Stream, lines: bytes) -> None:
        if self._output.on_terminal(stream):
            lines = tame(lines)
        await self._output.write(stream, self._prefix + lines.replace(b"\n", b"\n" + self._prefix) + b"\n")


def tame(lines: bytes) -> bytes:
    """Return lines whose colours end with them, and whose other control characters are shown, not obeyed.

    On a terminal one host could otherwise overwrite, hide or make up the lines of another.
    """
    lines = _STEERING.sub(lambda found: b"\\x%02x" % found[0][-1], lines.replace(b"\r\n", b"\n"))
    return b"\n".join(line + b"\x1b[0m" if b"\x1b" in line else line for line in lines.split(b"\n"))


def _kind(fd: int) -> str:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:  # closed by whoever started us: the first write says so
        return "other"
    return "file" if stat.S_ISREG(mode) else "pipe" if stat.S_ISFIFO(mode) else "other"


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, waiting where the descriptor was left non-blocking by someone who shares it."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def piped_input(fd: int = 0) -> AsyncIterator[bytes] | None:
    """Return what is piped into the caller, block by block; None for a terminal, /dev/null or nothing."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    if os.isatty(fd) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev):
        return None
    return _blocks(fd)


async def read_line(fd: int) -> bytes:
    """Return the next line typed at a terminal; cancelling stops the wait."""
    return await Aside("question").do(lambda: _read(fd))


async def _blocks(fd: int) -> AsyncIterator[bytes]:
    aside = Aside("input")
    try:
        while data := await aside.do(lambda: _read(fd)):
            yield data
    except OSError as error:
        tell(f"standard input can't be read: {error.strerror}", hint="-n gives the program no input")


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, BLOCK)
        except BlockingIOError:
            select.select([fd], [], [])
