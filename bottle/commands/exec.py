"""`bottle exec`: a second program in a running agent's bottle, with the same home, doors, environment and bounds."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import Any

from bottle import screen
from bottle.attended import Through
from bottle.commands.outcome import Outcome
from bottle.commands.told import print_json
from bottle.control_wire import connect_to, failure, frame, read_frame
from bottle.errors import LaunchFailed
from bottle.manifest.store import home_root
from bottle.state import State
from bottle.telling import Telling
from opsexec.errors import OpsError, UsageError
from opsexec.executor import LogSink

BLOCK = 64 << 10


def execute(arguments: argparse.Namespace) -> int:
    """Run it to its end; returns its exit status, 128 and the number for a signal."""
    argv = tuple(arguments.arguments)
    if not argv:
        raise UsageError("there is no program to run", hint="bottle exec ID -- PROGRAM ARGUMENTS")
    if arguments.json:
        return _one_object(arguments, argv)
    wants = arguments.tty if arguments.tty is not None else screen.is_there()
    if wants and not screen.is_there():
        raise UsageError("--tty needs a terminal on both input and output", hint="leave it out")
    if not wants:
        return asyncio.run(run(arguments.identity, argv, Through(), _stdin()))
    shown = screen.Screen(Telling(sys.stderr.fileno()))
    with shown.raw():
        return asyncio.run(run(arguments.identity, argv, shown, shown.frames(), screen.size()))


def _one_object(arguments: argparse.Namespace, argv: tuple[str, ...]) -> int:
    """Run it to its end and print what became of it; where it couldn't be run, that."""
    screen.require_none(arguments)
    outcome, told = Outcome(), {"identity": arguments.identity}
    try:
        ended = asyncio.run(_ended(arguments.identity, argv, outcome, _stdin()))
    except OpsError as error:
        print_json(told | outcome.as_json(error))
        raise
    outcome.exit_code, outcome.signal = ended.get("exit_code"), ended.get("signal")
    print_json(told | outcome.as_json())
    return _status(ended)


async def run(
    identity: str, argv: tuple[str, ...], sink: LogSink, stdin: AsyncIterator[bytes], size: Any = None
) -> int:
    """Have a bottle's launcher run a program; returns its exit status, 128 and the number for a signal.

    Raises NoSuchBottle where none runs, LaunchFailed when it goes away.
    """
    return _status(await _ended(identity, argv, sink, stdin, size))


async def _ended(
    identity: str, argv: tuple[str, ...], sink: LogSink, stdin: AsyncIterator[bytes], size: Any = None
) -> dict[str, Any]:
    """Have it run; returns what the launcher says of its end."""
    reader, writer = await connect_to(State(home_root().resolve()), identity)
    asked: dict[str, Any] = {"argv": argv}
    if size is not None:
        asked |= {"columns": size.columns, "rows": size.rows, "term": size.term}
    writer.write(frame(b"?", json.dumps(asked).encode()))
    giving = asyncio.create_task(_give(writer, stdin))
    try:
        while (found := await read_frame(reader)) is not None:
            kind, data = found
            if kind in (b"o", b"e"):
                await sink.write("stdout" if kind == b"o" else "stderr", data)
                continue
            told = json.loads(data)
            if kind == b"f":
                raise failure(told)
            return dict(told)
        raise LaunchFailed(f"{identity} ended", hint="`bottle list --all` shows what became of it")
    finally:
        giving.cancel()
        # What it was given up at is no news: the program has ended, or its launcher has.
        await asyncio.gather(giving, return_exceptions=True)
        writer.close()


def _status(told: dict[str, Any]) -> int:
    import signal

    if told.get("signal") is None:
        return int(told.get("exit_code") or 0)
    return 128 + signal.Signals[str(told["signal"])]


async def _give(writer: asyncio.StreamWriter, stdin: AsyncIterator[bytes]) -> None:
    async for data in stdin:
        writer.write(frame(b"i", data))
        await writer.drain()
    writer.write(frame(b"i", b""))
    await writer.drain()


async def _stdin() -> AsyncIterator[bytes]:
    """Yield this process's stdin, read beside the loop: it may be a file, a pipe or a terminal."""
    if sys.stdin.isatty():
        return
    queue: asyncio.Queue[bytes] = asyncio.Queue(4)
    loop = asyncio.get_running_loop()

    def read() -> None:
        while True:
            try:
                data = os.read(0, BLOCK)
            except OSError:
                data = b""
            handing = queue.put(data)
            try:
                asyncio.run_coroutine_threadsafe(handing, loop).result()
            except (RuntimeError, CancelledError):  # the program has ended, and the loop: nobody takes it
                handing.close()
                return
            if not data:
                return

    import threading

    threading.Thread(target=read, daemon=True).start()
    while data := await queue.get():
        yield data
