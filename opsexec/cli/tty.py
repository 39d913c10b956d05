"""`opsexec tty`: an interactive terminal on a host, or somebody else's, watched."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING

from opsexec.cli.arguments import add_host, add_user
from opsexec.cli.command import Command
from opsexec.cli.drive import drive
from opsexec.cli.ending import OutputFailed, printable, tell
from opsexec.errors import CapabilityDenied, UsageError

if TYPE_CHECKING:
    import argparse
    import asyncio

    from opsexec.cli.command import Parser
    from opsexec.cli.screen import Modes
    from opsexec.cli.streams import Output
    from opsexec.executor import Executor, RunOutput, TtySession
    from opsexec.recording import Recording

UNKNOWN_SHELL = "facts:user isn't granted, which says what the login shell is"


def _arguments(parser: Parser) -> None:
    add_host(parser, many=False)
    parser.add_argument("--record", metavar="FILE", help="record the screen into a new file (asciicast v3)")
    parser.add_argument("--cwd", metavar="DIR", help="directory to start in (default: the home directory)")
    parser.add_argument(
        "--watch", metavar="RUN", help="watch this terminal at the host's agent; nothing is typed there"
    )
    parser.add_argument("--list", action="store_true", help="list the terminals at the host's agent that you may watch")
    add_user(parser)


def _tty(args: argparse.Namespace) -> int:
    if args.list or args.watch is not None:
        from opsexec.cli.watch import list_terminals, watch

        if args.program or args.record or args.cwd or args.run_as:
            raise UsageError("a terminal that is watched runs already", hint="leave the other options out")
        return drive(lambda: list_terminals(args) if args.list else watch(args))
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("tty needs a terminal on both its input and output", hint="without one, use `opsexec exec`")
    return drive(lambda: _session(args))


async def _session(args: argparse.Namespace) -> int:
    from opsexec.cli.results import Result
    from opsexec.cli.screen import size_of
    from opsexec.cli.targets import find_target, open_executor
    from opsexec.recording import Recording
    from opsexec.steps import Tty

    target = await find_target(args)
    columns, rows = size_of(0)
    term = os.environ.get("TERM", "xterm-256color")
    async with open_executor(target, args) as executor:
        shell = None if args.program else await login_shell(executor, args.run_as)
        argv = tuple(args.program or [shell or "/bin/sh", "-l"])
        step = Tty(argv=argv, cwd=args.cwd, run_as=args.run_as, term=term, columns=columns, rows=rows)
        recording = None
        if args.record is not None:
            recording = Recording.create(
                args.record, columns=columns, rows=rows, term=term, title=target.name, command=shlex.join(argv)
            )
        try:
            _tell_notes(executor)
            try:
                session = await executor.open_tty(step)
            except CapabilityDenied as error:
                if not args.program and shell is None:
                    error.hint = f"{UNKNOWN_SHELL}: grant it, or name a program that is granted after --"
                raise
            if not args.program and shell is None:
                tell(f"{UNKNOWN_SHELL}: this is /bin/sh")
            output = await show(session, recording)
        except BaseException:  # a cancellation as well
            if recording is not None and recording.empty:
                recording.discard()
            raise
        finally:
            if recording is not None:
                recording.close()
    result = Result(target.name, output)
    result.tell()
    return result.code


def _tell_notes(executor: Executor) -> None:
    """Have what an agent says beside the terminal's output told on stderr; the terminal is raw meanwhile."""
    from opsexec.rpc import AgentRpc

    if isinstance(executor, AgentRpc):
        executor.on_note = lambda text: print(f"\ropsexec: {printable(text)}\r", file=sys.stderr, flush=True)


async def login_shell(executor: Executor, run_as: str | None) -> str | None:
    """Return the login shell of whoever the terminal runs as; None where asking for it isn't granted."""
    from opsexec.steps import Facts

    try:
        output = await executor.run(Facts(names=("user",), run_as=run_as))
    except CapabilityDenied:
        return None
    user = output.value.get("user") or {}
    return user.get("shell") or "/bin/sh"


async def show(session: TtySession, recording: Recording | None) -> RunOutput:
    """Join the caller's terminal to the session until the program ends; however this ends, the session does too."""
    import asyncio

    from opsexec.cli.screen import Modes, raw_mode
    from opsexec.cli.streams import Output
    from opsexec.terminal import shell_status

    loop = asyncio.get_running_loop()
    output, modes, resized = Output(), Modes(), asyncio.Event()
    tasks = [
        asyncio.create_task(_draw(session, output, modes, recording)),
        asyncio.create_task(_type(session)),
        asyncio.create_task(_resize(session, resized, recording)),
    ]
    with raw_mode(0):
        loop.add_signal_handler(signal.SIGWINCH, resized.set)
        try:
            over, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*over)
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)
            await session.aclose()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _put_back(output, modes)
    ended = await session.wait()
    if recording is not None:
        recording.ended(shell_status(ended))
    return ended


async def _put_back(output: Output, modes: Modes) -> None:
    """Switch back what programs left switched; a terminal that is gone needs nothing."""
    try:
        await output.write("stdout", modes.undo())
    except (OutputFailed, BrokenPipeError):
        return


async def _type(session: TtySession) -> None:
    """Send keys until the person leaves with `~.` or the terminal is gone."""
    from opsexec.cli.screen import Escape, keys

    escape = Escape()
    while data := await keys(0):
        passed = escape.passes(data)
        if passed is None:
            return
        if passed:
            await session.write(passed)


async def _draw(session: TtySession, output: Output, modes: Modes, recording: Recording | None) -> None:
    """Show output until there is no more; it is recorded before it is shown."""
    while data := await session.read():
        if recording is not None:
            recording.output(data)
        modes.watch(data)
        await output.write("stdout", data)


async def _resize(session: TtySession, resized: asyncio.Event, recording: Recording | None) -> None:
    """Pass on each new size of this terminal."""
    from opsexec.cli.screen import size_of

    while await resized.wait():
        resized.clear()
        columns, rows = size_of(0)
        session.resize(columns, rows)
        if recording is not None:
            recording.resized(columns, rows)


COMMANDS = (
    Command(
        name="tty",
        usage="HOST [OPTIONS] [-- ARGV...]",
        summary="Open an interactive terminal on a host.",
        description="""
        Open an interactive terminal on a host: its login shell, or the program after --. Keys pass through as they
        are typed (Ctrl-C reaches the program there); the size follows this terminal's. `~.` at the beginning of a
        line leaves a terminal that answers no more. However it ends, all that ran on it is ended too, and this
        terminal is put back as it was. --record keeps what was on the screen, never what was typed.

        An agent records every terminal itself (`opsexec replay HOST RUN`), and may ask a person there first. --watch
        shows one from its beginning and while it goes on, without what could steer your own terminal; q leaves.""",
        arguments=_arguments,
        run=_tty,
        takes_program=True,
        examples=(
            "opsexec tty web1",
            "opsexec tty web1 --record session.cast",
            "opsexec tty db1 --as postgres -- psql app",
            "opsexec tty agent+ssh://web1 --watch 6f1e0c2a9b7d4e53",
        ),
    ),
)
