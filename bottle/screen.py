"""The operator's own terminal while it shows an agent's: raw, resized along, put back; the agent only draws on it."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from bottle import terminal
from bottle.outlet import Outlet
from bottle.plan import BottlePlan
from opsexec.cli.screen import Escape, Modes, keys, raw_mode, size_of
from opsexec.errors import UsageError
from opsexec.executor import Stream
from opsexec.recording import Recording
from opsexec.safe_screen import SafeScreen

UNDO_S = 2.0
"""Seconds that a terminal has to take what puts it back. One that stands still keeps no bottle's end waiting."""


def is_there() -> bool:
    """True when this process talks to a person: a terminal on stdin and stdout."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def size() -> terminal.Size:
    """Return the size and kind of this process's terminal."""
    columns, rows = size_of(0)
    return terminal.Size(columns, rows, os.environ.get("TERM") or "xterm-256color")


def require_none(arguments: argparse.Namespace) -> None:
    """Raise UsageError where a terminal is asked for beside --json, which keeps what would be drawn for the end."""
    for option, asked in (("--tty", arguments.tty), ("--record", getattr(arguments, "record", None))):
        if asked:
            raise UsageError(
                f"--json is for programs without a terminal, and {option} is for one", hint="leave one out"
            )


@contextmanager
def on_screen(arguments: argparse.Namespace, plan: BottlePlan, tell: Callable[[str], None]) -> Iterator[Screen | None]:
    """The screen of a launch, closed after it; None where the agent gets no terminal. Raises UsageError."""
    wants = False if arguments.json else arguments.tty if arguments.tty is not None else is_there()
    if (wants or arguments.record) and not is_there():
        raise UsageError("a terminal for the agent needs one here, on both input and output", hint="leave --tty out")
    if not wants:
        if arguments.record:
            raise UsageError(
                "--record keeps a terminal's screen, and --no-tty makes none", hint="leave one of them out"
            )
        yield None
        return
    if arguments.record is None:
        yield Screen(tell)
        return
    shape = size()
    recording = Recording.create(
        arguments.record,
        columns=shape.columns,
        rows=shape.rows,
        term=shape.term,
        title=plan.identity,
        command=shlex.join(plan.command),
    )
    try:
        yield Screen(tell, recording)
    finally:
        if recording.empty:  # nothing came of the launch
            recording.discard()
        recording.close()


class Screen:
    """A sink for what the agent draws, and the frames of what a person types.

    `tell`: how its operator is told something; `recording`: keeps what was drawn.
    """

    def __init__(self, tell: Callable[[str], None], recording: Recording | None = None) -> None:
        self._tell = tell
        self._recording = recording
        self._safe = SafeScreen()
        self._modes = Modes()
        self._outlet = Outlet(sys.stdout.fileno())
        self._held: list[str] = []
        self.joined = False

    def say(self, line: str) -> None:
        """Tell the operator: now, or when the screen is theirs again."""
        if self.joined:
            self._held.append(line)
            return
        self._tell(line)

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Pass each key on as it is typed, while this lasts."""
        with raw_mode(0):
            self.joined = True
            try:
                yield
            finally:
                self.joined = False
                undo = self._modes.undo()
                if undo:
                    self._outlet.finish(undo, UNDO_S)
        held, self._held = self._held, []
        for line in held:
            self.say(line)

    async def write(self, stream: Stream, data: bytes) -> None:
        """Record a block, and show of it what draws."""
        if self._recording is not None and stream == "stdout":
            self._recording.output(data)
        shown = self._safe.pass_on(data)
        self._modes.watch(shown)
        await self._outlet.write(shown)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield what is typed and each new size; ends when the person leaves with `~.`, or the terminal is gone."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        loop.add_signal_handler(signal.SIGWINCH, changed.set)
        escape = Escape()
        typing = asyncio.ensure_future(keys(0))
        turning = asyncio.ensure_future(changed.wait())
        try:
            while True:
                await asyncio.wait([typing, turning], return_when=asyncio.FIRST_COMPLETED)
                if turning.done():
                    changed.clear()
                    turning = asyncio.ensure_future(changed.wait())
                    columns, rows = size_of(0)
                    if self._recording is not None:
                        self._recording.resized(columns, rows)
                    yield terminal.resized(columns, rows)
                if typing.done():
                    data = typing.result()
                    passed = escape.passes(data) if data else None
                    if passed is None:
                        return
                    typing = asyncio.ensure_future(keys(0))
                    if passed:
                        yield terminal.keys(passed)
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)
            typing.cancel()
            turning.cancel()
