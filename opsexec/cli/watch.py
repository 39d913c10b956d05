"""`opsexec tty HOST --watch RUN` and `--list`: terminals of others at a host's agent."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from opsexec.cli.ending import OK, printable, tell
from opsexec.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.screen import Modes
    from opsexec.cli.streams import Output
    from opsexec.executor import Stream
    from opsexec.host_executor import HostExecutor
    from opsexec.rpc import AgentRpc
    from opsexec.rpc_terminals import AgentTerminals

LEAVING = b"q\x03\x04"
"""Keys that end watching: q, Ctrl-C, Ctrl-D."""


def of_agent(executor: HostExecutor) -> AgentRpc:
    """Return an executor as the agent's that it must be; raises UsageError."""
    from opsexec.rpc import AgentRpc

    if not isinstance(executor, AgentRpc):
        raise UsageError("terminals are kept by ops-agent alone", host=executor.host, hint="like agent+ssh://user@host")
    return executor


async def list_terminals(args: argparse.Namespace) -> int:
    """Print the terminals that may be watched or replayed."""
    from opsexec.cli.table import print_table
    from opsexec.cli.targets import find_target, open_executor

    async with open_executor(await find_target(args), args) as executor:
        found = await of_agent(executor).terminals.kept()
    if not found:
        tell("there are no terminals that you may read")
        return OK
    rows = []
    for each in found:
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(min(max(0.0, each.begun), 2.0**32)))
        rows.append([printable(each.run), printable(each.principal), "open" if each.live else "ended", begun])
    print_table(["RUN", "OPENED BY", "STATE", "BEGUN"], rows)
    return OK


async def watch(args: argparse.Namespace) -> int:
    """Show a terminal until it ends, or until the person who watches leaves."""
    from opsexec.cli.targets import find_target, open_executor

    async with open_executor(await find_target(args), args) as executor:
        return await watch_run(of_agent(executor).terminals, args.watch)


async def watch_run(terminals: AgentTerminals, run: str) -> int:
    """As `watch`, at an agent that is asked already."""
    from opsexec.cli.screen import Modes, raw_mode
    from opsexec.cli.streams import Output

    output, modes = Output(), Modes()
    person = sys.stdin.isatty() and sys.stdout.isatty()
    sink = Drawn(output, modes)
    watching = asyncio.create_task(terminals.watch(run, sink, on_size=SizeTeller(person), on_note=_say))
    with raw_mode(0) if person else nullcontext():
        leaving = asyncio.create_task(_leave()) if person else None
        try:
            await asyncio.wait(
                [task for task in (watching, leaving) if task is not None], return_when="FIRST_COMPLETED"
            )
        finally:
            for task in (watching, leaving):
                if task is not None:
                    task.cancel()
            await asyncio.wait([task for task in (watching, leaving) if task is not None])
            if person:
                await output.write("stdout", modes.undo())
    if watching.cancelled():
        return OK
    status = watching.result()
    _say(f"the terminal has ended{'' if status is None else f' with status {status}'}")
    return OK


class Drawn:
    """A sink that draws what is safe to draw."""

    def __init__(self, output: Output, modes: Modes) -> None:
        from opsexec.safe_screen import SafeScreen

        self._output = output
        self._modes = modes
        self._screen = SafeScreen()

    async def write(self, stream: Stream, data: bytes) -> None:
        shown = self._screen.pass_on(data)
        if shown:
            self._modes.watch(shown)
            await self._output.write(stream, shown)


async def _leave() -> None:
    from opsexec.cli.screen import keys

    while data := await keys(0):
        if any(key in LEAVING for key in data):
            return


def _say(text: str) -> None:
    """Tell something beside the screen, which may be raw."""
    print(f"\ropsexec: {printable(text)}\r", file=sys.stderr, flush=True)


class SizeTeller:
    """Says once how large the watched screen is, when this one is smaller."""

    def __init__(self, person: bool) -> None:
        self._told = not person

    def __call__(self, columns: int, rows: int) -> None:
        from opsexec.cli.screen import size_of

        mine = size_of(1)
        if not self._told and (mine[0] < columns or mine[1] < rows):
            self._told = True
            _say(f"that terminal has {columns}x{rows} characters, this one has {mine[0]}x{mine[1]}")
