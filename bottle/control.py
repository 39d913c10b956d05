"""The launcher's own door: a socket in the bottle's directory, which no sandbox has, for programs beside the agent.

`bottle exec` comes this way, so that what it starts has the launcher's executor, ceiling, audit and end. What goes over
it stands in control_wire.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from bottle.backends.base import Place
from bottle.backends.by_name import backend
from bottle.control_wire import MAX_FRAME, NAME, frame, read_frame, still_starting
from bottle.credentials import Credentials
from bottle.plan import BottlePlan
from bottle.restarting import Restarting
from bottle.terminal import Size, on_a_terminal
from opsexec.errors import OpsError, UsageError
from opsexec.executor import Executor, LogSink, RunOutput, Stream

MAX_AT_ONCE = 16
WAITING = 16
"""Blocks of stdin that wait for a program that doesn't read; then its caller waits."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program to run beside the agent, or a daemon to `restart`. `columns`: 0 without a terminal."""

    argv: tuple[str, ...] = ()
    restart: str = ""
    columns: int = 0
    rows: int = 0
    term: str = "xterm-256color"

    @property
    def size(self) -> Size | None:
        """The terminal it wants; raises UsageError for one that can't be."""
        return Size(self.columns, self.rows, self.term) if self.columns else None


Runner = Callable[[Asked, LogSink, AsyncIterator[bytes]], Awaitable[RunOutput]]


class Beside:
    """Runs programs in the agent's place, once it is `ready`, and restarts daemons.

    `rebuilt`: tells when the place is about to go, for another one.
    """

    def __init__(
        self,
        plan: BottlePlan,
        place: Place,
        secrets: Credentials,
        ex: Executor,
        restarting: Restarting,
        rebuilt: Callable[[], bool] = lambda: False,
    ) -> None:
        self._plan, self._place, self._secrets, self._ex = plan, place, secrets, ex
        self._restarting, self._rebuilt = restarting, rebuilt
        self.ready = False

    async def run(self, asked: Asked, sink: LogSink, stdin: AsyncIterator[bytes]) -> RunOutput:
        """Run one program to its end."""
        if not self.ready or self._rebuilt():
            raise still_starting(self._plan.identity)
        if asked.restart:
            await self._restarting.restart(asked.restart)
            return RunOutput(run="", host=self._plan.identity, exit_code=0)
        argv = asked.argv if asked.size is None else on_a_terminal(asked.argv, asked.size)
        step = backend(self._plan.backend).agent_run(self._plan, self._place, self._secrets, argv)
        return await self._ex.run_streaming(step, sink, stdin=stdin)


@asynccontextmanager
async def served(directory: Path, run: Runner) -> AsyncIterator[None]:
    """Listen in a bottle's directory while this lasts; what was started ends with it."""
    door = _Door(run)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A socket's address holds 107 bytes, less than a path may have.
        path = f"/proc/self/fd/{fd}/{NAME}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.lexists(path):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o600)
        server = await asyncio.start_unix_server(door.come, sock=listener, limit=MAX_FRAME)
        try:
            yield
        finally:
            server.close()
            await door.end()
            if os.path.lexists(path):
                os.unlink(path)
    finally:
        os.close(fd)


class _Door:
    """Everyone who came."""

    def __init__(self, run: Runner) -> None:
        self._run = run
        self._tasks: set[asyncio.Task[Any]] = set()

    async def come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            try:
                if len(self._tasks) > MAX_AT_ONCE:
                    raise OpsError(f"{MAX_AT_ONCE} programs run beside the agent already", hint="wait for one to end")
                await self._serve(reader, writer)
            except OpsError as error:
                told = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
                await _say_last(reader, writer, frame(b"f", json.dumps(told).encode()))
        except ConnectionError:  # whoever asked is gone; so is what it started
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _require_owner(writer)
        asked = await _asked(reader)
        given: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        running = asyncio.ensure_future(self._run(asked, _Back(writer), _blocks(given)))
        listening = asyncio.create_task(_listen(reader, given))
        going = asyncio.create_task(_gone(writer.get_extra_info("socket").fileno()))
        try:
            await asyncio.wait([running, listening, going], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                if listening.done():
                    listening.result()
                return
            out = running.result()
        finally:
            for task in (running, listening, going):
                task.cancel()
            # How the others end is no news by now.
            await asyncio.gather(running, listening, going, return_exceptions=True)
        told = {"exit_code": out.exit_code, "signal": out.signal}
        await _say_last(reader, writer, frame(b"x", json.dumps(told).encode()))

    async def end(self) -> None:
        """End what still runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _say_last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    """Say the last word, and take what is still sent until whoever asked goes.

    Closed under somebody who writes, a socket takes along what that one hasn't read yet (unix(7), ECONNRESET).
    """
    writer.write(data)
    await writer.drain()
    writer.write_eof()
    while await reader.read(MAX_FRAME):
        continue


def _require_owner(writer: asyncio.StreamWriter) -> None:
    """Raise OpsError unless whoever connected is this user, or root (unix(7), SO_PEERCRED)."""
    data = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, _ = struct.unpack("iII", data)
    if uid not in (0, os.geteuid()):
        raise OpsError("this bottle is another user's")


async def _asked(reader: asyncio.StreamReader) -> Asked:
    found = await read_frame(reader)
    if found is None or found[0] != b"?":
        raise UsageError("nothing was asked")
    try:
        asked = msgspec.json.decode(found[1], type=Asked)
    except msgspec.DecodeError as error:
        raise UsageError(f"what was asked can't be read: {error}") from error
    if not asked.argv and not asked.restart:
        raise UsageError("there is no program to run", hint="bottle exec ID -- PROGRAM ARGUMENTS")
    return asked


async def _listen(reader: asyncio.StreamReader, given: asyncio.Queue[bytes]) -> None:
    """Pass on stdin until the connection ends. An empty block is the end of stdin, and the connection stays."""
    while (found := await read_frame(reader)) is not None:
        if found[0] != b"i":
            raise UsageError(f"a frame {found[0]!r} has no place here")
        await given.put(found[1])


async def _gone(fd: int) -> None:
    """Return once the other end is closed, also while nothing of what it said is read (epoll_ctl(2), EPOLLRDHUP)."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    with select.epoll() as watch:
        watch.register(fd, select.EPOLLRDHUP)
        loop.add_reader(watch.fileno(), closed.set)
        try:
            await closed.wait()
        finally:
            loop.remove_reader(watch.fileno())


async def _blocks(given: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while data := await given.get():
        yield data


class _Back:
    """A sink that hands output to whoever asked."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, stream: Stream, data: bytes) -> None:
        for at in range(0, len(data), MAX_FRAME):
            self._writer.write(frame(b"o" if stream == "stdout" else b"e", data[at : at + MAX_FRAME]))
        await self._writer.drain()
