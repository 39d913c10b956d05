"""A bottle that this process stays with: its executor, audit and log, until the agent ends or a signal comes."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from bottle import hosting, launch, screen, terminal
from bottle.authority import NOBODY, mint
from bottle.backends.base import Place
from bottle.control import Beside, served
from bottle.credentials import Credentials
from bottle.errors import LaunchFailed
from bottle.hosting import Host
from bottle.outlet import Outlet
from bottle.plan import BottlePlan
from bottle.restarting import Restarting
from bottle.screen import Screen
from bottle.state import Metadata, State
from opsexec.capability import CapabilitySet
from opsexec.executor import AuditSink, LogSink, RunOutput, Stream
from opsexec.safe_screen import SafeScreen

if TYPE_CHECKING:
    from bottle.operator.attendant import Attendant

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@dataclass(frozen=True)
class Attended:
    """One bottle to attend to. `running`: the metadata to write once its agent runs; `output`: where its words go.

    `screen`: the operator's own, when the agent is to have a terminal; it is `output` then, too. `host`: None = here.
    """

    plan: BottlePlan
    place: Place
    secrets: Credentials
    state: State
    running: Metadata
    output: LogSink
    say: Callable[[str], None]
    seen: Callable[[dict[str, Any]], None]
    resume: bool = False
    screen: Screen | None = None
    host: Host | None = None


async def attend(whole: Attended) -> int:
    """Bring the bottle up, stay until its agent ends, and return that one's exit status.

    After a signal to this process it is 128 and the signal's number. It runs under the least capabilities of its plan.
    Raises LaunchFailed when it doesn't come up, or is torn down.
    """
    from bottle.operator.attending import attending, rebuilding
    from opsexec.audit import AuditLog

    plan = whole.plan
    stopped = _end_on_signals(plan.identity, whole.say)
    directory = whole.state.directory(plan.identity)
    with AuditLog.open(directory / "audit.jsonl") as audit, _open_log(directory) as log:
        try:
            async with attending(plan, directory, whole.secrets, audit, whole.say) as attendant:
                out = await rebuilding(whole, attendant, lambda each: _once(each, audit, log, attendant))
        except asyncio.CancelledError:
            if not stopped:
                raise
            whole.say(f"{plan.identity} stopped ({stopped[0].name})")
            return SIGNALS[stopped[0]]
    if out.exit_code is None:
        raise LaunchFailed(f"the agent was ended by {out.signal}", host=plan.identity)
    return out.exit_code


async def _once(whole: Attended, audit: AuditSink, log: TextIO, attendant: Attendant | None) -> RunOutput:
    """Launch one plan, under what that plan needs and no more."""
    plan = whole.plan
    wanted = launch.capabilities(plan, whole.place, whole.secrets, NOBODY)
    arriving = () if whole.host is None else hosting.arrival(whole.place)
    granted = CapabilitySet.of(*wanted, *(() if whole.host is None else hosting.needs(whole.place)))
    restarting = Restarting(plan.identity, whole.say)
    made = launch.Launch(
        plan,
        whole.place,
        whole.secrets,
        lambda: asyncio.to_thread(mint, plan.identity),
        audit,
        log,
        whole.say,
        whole.seen,
        whole.resume,
        attendant,
        restarting=restarting,
    )
    if whole.screen is not None:
        command = terminal.on_a_terminal(plan.command, screen.size())
        made = dataclasses.replace(made, command=command, stdin=whole.screen.frames)
    async with hosting.executor(whole.host, granted, audit, plan.identity) as ex:
        beside = Beside(plan, whole.place, whole.secrets, ex, restarting, lambda: _is_to_be_rebuilt(attendant))
        try:
            for step in arriving:
                await ex.run(step)
            async with served(whole.state.directory(plan.identity), beside.run):
                with ExitStack() as stack:

                    def came_up() -> None:
                        _came_up(whole)
                        beside.ready = True
                        if whole.screen is not None:
                            stack.enter_context(whole.screen.raw())

                    return await launch.run(made, ex, whole.output, came_up)
        except BaseException:  # a cancellation as well: the bottle never came up
            if arriving and not beside.ready and not whole.resume:
                await asyncio.shield(hosting.departure(ex, whole.place, whole.say))
            raise


def _is_to_be_rebuilt(attendant: Attendant | None) -> bool:
    return attendant is not None and attendant.rebuild is not None


def _end_on_signals(identity: str, say: Callable[[str], None]) -> list[signal.Signals]:
    """Cancel this task when a signal comes; returns the list it is noted in.

    One is enough: another would break off what takes the bottle away, so it is only answered.
    """
    task = asyncio.current_task()
    assert task is not None
    stopped: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        stopped.append(number)
        if len(stopped) == 1:
            task.cancel()
        elif len(stopped) == 2:
            say(f"{identity} is ending; Ctrl-\\ breaks that off, and `bottle cleanup` takes what is left then")

    for number in SIGNALS:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:  # nohup asks for that
            continue
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    return stopped


def _open_log(directory: Path) -> TextIO:
    return open(directory / "bundle.log", "a", encoding="utf-8", errors="backslashreplace")


def _came_up(whole: Attended) -> None:
    if not gc.isenabled():  # the launch held it off: what was read for that stays to the end, and isn't looked through
        gc.freeze()
        gc.enable()
    whole.state.write(whole.running)
    whole.say(f"{whole.running.identity} is running")


class Through:
    """A sink that hands the agent's output to this process's own; to a terminal only what draws on it."""

    def __init__(self) -> None:
        targets = (("stdout", sys.stdout), ("stderr", sys.stderr))
        self._screens = {name: SafeScreen() for name, target in targets if target.isatty()}
        self._outlets = {name: Outlet(target.fileno()) for name, target in targets}

    async def write(self, stream: Stream, data: bytes) -> None:
        """Hand on a block."""
        screen = self._screens.get(stream)
        await self._outlets[stream].write(data if screen is None else screen.pass_on(data))
