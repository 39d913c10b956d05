"""Services that change their state: told by the host's service manager as it happens, and looked at now and then.

What it says is each service's state, also one it is in for a moment. Where it can't be heard, all of them are listed
every few seconds and compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress

from agent.events.clock import stamp
from agent.events.feed import Event
from agent.events.systemd_words import UnitState, words
from agent.marked_host import new_mark
from opsexec.capability import program_candidates
from opsexec.errors import OpsError
from opsexec.executor import Stream
from opsexec.hosts.local import LocalHost
from opsexec.hosts.port import ProcessSpec
from opsexec.recorder import Recorder

LOOK_S = 5.0
"""Seconds between looks at a manager that can't be heard."""
HEARD_S = 60.0
"""Seconds between looks at one that is: nothing should be found."""
APART_S = 1.0
"""Seconds that a look waits for what else changes: units are loaded and forgotten in swarms."""
ABSENT_S = 60.0
"""Seconds until a manager that didn't answer is asked again."""
ASK_S = 20.0
MAX_LIST = 4 << 20
MAX_CHANGES = 200
"""Changes of one look that are told one by one."""

Units = dict[str, str]
WORDS: tuple[str, ...] = (
    "systemctl", "--no-pager", "--no-ask-password", "list-units", "--all", "--full", "--plain", "--no-legend",
    "--type=service",
)  # fmt: skip


class Services:
    """Implements Source: `services` first, with those that have failed, then one `service` event a change.

    `runtime_dir`: of the user whose own service manager is followed, None = the system's.
    """

    def __init__(self, host: LocalHost, runtime_dir: str | None = None) -> None:
        self._host = host
        self._runtime_dir = runtime_dir
        self._known: Units | None = None
        self._absent: Event | None = None
        self._heard = 0
        self._hears = False

    def now(self) -> Event | None:
        """As `Source.now`."""
        return self._absent if self._known is None else overview(self._known)

    async def run(self, tell: Callable[[Event], None]) -> None:
        """As `Source.run`."""
        self._known = self._absent = None
        self._hears = False
        anew = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(tell, anew))
            while True:
                anew.clear()
                await self._look(tell, anew)
                await self._rest(anew)

    async def _look(self, tell: Callable[[Event], None], anew: asyncio.Event) -> None:
        """List all units, and tell what has changed that nobody said."""
        heard = self._heard
        units = await self._units()
        if units is None:
            if self._known is not None or self._absent is None:
                self._absent = absent("services", "no service manager answers")
                tell(self._absent)
            self._known = None
        elif self._known is None:
            self._known = units
            tell(overview(units))
        elif heard == self._heard:
            for event in changes(self._known, units)[:MAX_CHANGES]:
                tell(event)
            self._known = units
        if heard != self._heard:  # what was listed may be older than what was said meanwhile
            anew.set()

    async def _rest(self, anew: asyncio.Event) -> None:
        """Wait until it is time to look again."""
        try:
            async with asyncio.timeout(ABSENT_S if self._known is None else HEARD_S if self._hears else LOOK_S):
                await anew.wait()
                await asyncio.sleep(APART_S)
        except TimeoutError:
            return

    async def _listen(self, tell: Callable[[Event], None], anew: asyncio.Event) -> None:
        """Tell what the manager says, for ever; one that can't be heard is tried again later."""
        while True:
            with suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                async with aclosing(words(self._runtime_dir)) as said:
                    async for word in said:
                        self._hears = True
                        if word is None:
                            anew.set()
                        else:
                            self._take(word, tell)
            wait, self._hears = (APART_S if self._hears else ABSENT_S), False
            await asyncio.sleep(wait)

    def _take(self, word: UnitState, tell: Callable[[Event], None]) -> None:
        self._heard += 1
        if self._known is None or (was := self._known.get(word.unit)) == word.state:
            return
        self._known[word.unit] = word.state
        tell(change(word.unit, was, word.state))

    async def _units(self) -> Units | None:
        """Return each unit's state; None where no manager answers."""
        programs = program_candidates(WORDS[0])
        env, argv = {"LC_ALL": "C", "SYSTEMD_COLORS": "0"}, WORDS
        if self._runtime_dir is not None:
            env["XDG_RUNTIME_DIR"] = self._runtime_dir
            argv = (*WORDS, "--user")
        spec = ProcessSpec(run=new_mark(), programs=programs, admitted=programs, argv=argv, env=env, timeout_s=ASK_S)
        listed = _Listed()
        recorder = Recorder(listed, limit_bytes=MAX_LIST)
        try:
            ended = await self._host.run_process(spec, recorder)
            await recorder.finish()
        except OpsError:
            return None
        finally:
            recorder.abandon()
        return parse_units(listed.text()) if ended.exit_code == 0 else None


class _Listed:
    """A sink that keeps what systemctl lists."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    async def write(self, stream: Stream, data: bytes) -> None:
        """Keep stdout."""
        if stream == "stdout":
            self._blocks.append(data)

    def text(self) -> str:
        """All of it."""
        return b"".join(self._blocks).decode("utf-8", "replace")


def parse_units(text: str) -> Units:
    """Return each unit's active and sub state, like "active/running", out of `systemctl list-units --plain`."""
    units = {}
    for line in text.splitlines():
        words = line.split(None, 4)
        if len(words) >= 4:
            units[words[0]] = f"{words[2]}/{words[3]}"
    return units


def changes(before: Units, after: Units) -> list[Event]:
    """Return an event for each unit whose state is another one; None stands for a unit that isn't loaded."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [change(name, before.get(name), after.get(name)) for name in names]


def change(unit: str, was: str | None, now: str | None) -> Event:
    """Return the event of one unit whose state is another one."""
    return {"ts": stamp(), "event": "service", "unit": unit, "was": was, "is": now}


def overview(units: Units) -> Event:
    """Return what a new follower is told first: which have failed."""
    failed = sorted(name for name, state in units.items() if state.startswith("failed"))
    return {"ts": stamp(), "event": "services", "services": {"failed": failed}}


def absent(reading: str, why: str) -> Event:
    """Return the event that says that something can't be followed here."""
    return {"ts": stamp(), "event": "absent", "reading": reading, "reason": why}
