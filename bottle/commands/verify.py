"""`bottle verify`: what an agent would try, tried in a living bottle, and what the bottle's own audit says of it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import TextIO

import msgspec

from bottle.commands.exec import run
from bottle.commands.told import print_json
from bottle.errors import LaunchFailed
from bottle.manifest.store import home_root
from bottle.preflight import shown
from bottle.state import State
from bottle.terminal import PYTHON
from opsexec.executor import Stream

MAX_SAID = 256 << 10
"""Bytes that the battery may say: an agent that speaks in its place has none of the launcher's memory."""


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was tried, and what came of it."""

    id: str
    tried: str
    held: bool
    came: str


class Said:
    """A sink that keeps what the battery says; raises LaunchFailed for too much.

    `screen`: a terminal whose person is told how far it has come, in one line that is gone at the `end`.
    """

    def __init__(self, screen: TextIO | None = None) -> None:
        self.data = bytearray()
        self._screen = screen
        self._line = ""

    def show(self) -> None:
        """Tell how many attempts were made."""
        if self._screen is not None:
            made = self.data.count(b"\n")
            self._line = f"bottle: {made} of {len(expected())} attempts made"
            self._screen.write(f"\r{self._line}")
            self._screen.flush()

    def end(self) -> None:
        """Take that line away."""
        if self._screen is not None and self._line:
            self._screen.write(f"\r{' ' * len(self._line)}\r")
            self._screen.flush()

    async def write(self, stream: Stream, data: bytes) -> None:
        """Keep a block of stdout."""
        if stream == "stdout":
            self.data += data
            self.show()
            if len(self.data) > MAX_SAID:
                raise LaunchFailed(f"the battery said over {MAX_SAID >> 10} KiB", hint=NOT_ALONE)


NOT_ALONE = "something in the bottle speaks in its place, or stops it: `bottle audit` shows what the bottle did"


def verify(arguments: argparse.Namespace) -> int:
    """Run the battery; returns 0 when every attempt failed, 1 when one didn't."""
    from opsexec.audit import verify as verify_log

    state = State(home_root().resolve())
    script = files("bottle.sidecars").joinpath("battery.py").read_text("utf-8")
    kept = Said(sys.stderr if sys.stderr.isatty() and not arguments.json else None)
    argv = (PYTHON, "-I", "-S", "-c", script)
    kept.show()
    try:
        status = asyncio.run(run(arguments.identity, argv, kept, _nothing()))
    finally:
        kept.end()
    tried = attempts(bytes(kept.data))
    if status != 0:
        raise LaunchFailed(
            f"the battery didn't run to its end in {arguments.identity} (status {status}, {len(tried)} attempts)",
            hint=f"it needs {PYTHON} in the bottle",
        )
    if [(each.id, each.tried) for each in tried] != expected():
        raise LaunchFailed(f"not each attempt was made in {arguments.identity}, or another one", hint=NOT_ALONE)
    log = verify_log(state.directory(arguments.identity) / "audit.jsonl")
    whole = log.problem is None
    held = whole and all(each.held for each in tried)
    if arguments.json:
        rows = [msgspec.structs.asdict(each) for each in tried]
        print_json({"identity": arguments.identity, "held": held, "attempts": rows, "audit": whole})
        return 0 if held else 1
    for each in tried:
        print(f"{'held' if each.held else 'OPEN':<5} {each.id:<5} {each.tried:<42} {shown(each.came)}")
    print(f"{'held' if whole else 'OPEN':<5} {'LG3':<5} {'the audit is whole':<42} {shown(str(log.problem or log))}")
    print(f"{sum(each.held for each in tried) + whole} of {len(tried) + 1} held")
    return 0 if held else 1


def attempts(said: bytes) -> list[Attempt]:
    """Return what stands in the lines of JSON; raises LaunchFailed for one that no battery says."""
    try:
        return [msgspec.json.decode(line, type=Attempt) for line in said.split(b"\n") if line[:1] == b"{"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LaunchFailed("the battery said what isn't its own", hint=NOT_ALONE) from error


def expected() -> list[tuple[str, str]]:
    """Return the attempts there are, by id and name, in their order."""
    from bottle.sidecars.battery import ATTEMPTS, FIRST

    return [FIRST, *((name, what) for name, what, _ in ATTEMPTS)]


async def _nothing() -> AsyncIterator[bytes]:
    """Give no stdin."""
    for each in list[bytes]():
        yield each
