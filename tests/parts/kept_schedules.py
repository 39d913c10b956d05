"""An agent's desk in this process, with schedules whose clock the test sets; everything else of it is real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from agent.asker import Asker
from agent.ceiling import Ceiling
from agent.config import parse_config
from agent.desk import Desk
from agent.detached import Detached
from agent.events.hub import Hub
from agent.marked_host import MarkedHost, new_mark
from agent.own_steps import AgentExecutor
from agent.run_store import RunStore
from agent.schedule.keeper import Entry, Keeper
from agent.schedule.model import Turn
from opsexec import CapabilitySet
from opsexec.audit import AuditLog
from opsexec.executor import RunOutput
from opsexec.steps import Exec, ScheduleAdd
from opsexec.steps.base import Step
from tests.parts.ops_agent import EVERYTHING
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually

ME = f"unix:{current_user()}"
NOON = 1_790_000_000 // 86400 * 86400 + 43200
MINUTE = 60


class FakeClock:
    """A clock that stands until it is set."""

    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        """Return the time it was set to."""
        return self.time


class Kept:
    """One agent's life without its listeners: begun with `async with`, its state under `directory`."""

    def __init__(self, directory: Path, clock: FakeClock, grants: Sequence[str] = EVERYTHING) -> None:
        self.directory = directory
        self.clock = clock
        directory.mkdir(mode=0o700, exist_ok=True)
        self.audit = AuditLog.open(directory / "audit.jsonl", fsync="never")
        config = parse_config(self._config(grants))
        self.detached = Detached(RunStore(directory / "runs"), self.audit, "here", config.limits)
        self.desk = Desk(config, self.audit, self.detached, Hub())
        self.desk.schedules = Keeper(self.desk, directory / "schedules", clock)
        self._tasks: list[asyncio.Task[None]] = []

    def _config(self, grants: Sequence[str]) -> str:
        head = f'[agent]\nname = "here"\nlisten = ["unix:/run/a/a.sock"]\nstate_dir = "{self.directory}"\n'
        return head + f'[[grants]]\nprincipal = "{ME}"\ncapabilities = {json.dumps(list(grants))}\nrun_as = ["*"]\n'

    def grant(self, *capabilities: str) -> None:
        """Read the config again, with these grants in it."""
        self.desk.ceiling = Ceiling(parse_config(self._config(capabilities)))

    @property
    def keeper(self) -> Keeper:
        """Its schedules."""
        return self.desk.schedules

    def entry(self, name: str) -> Entry:
        """One of them."""
        return self.keeper.entries[name]

    async def do(
        self, step: Step, attenuation: CapabilitySet | None = None, principal: str = ME, *, check: bool = False
    ) -> RunOutput:
        """Do one step as the agent does it for a caller."""
        from agent.ceiling import effective

        asker = Asker(principal, "test", self.desk.ceiling.grants(ME))
        held = effective(asker.grants, attenuation, step)
        host = MarkedHost(self.desk.host, new_mark())
        executor = AgentExecutor(self.desk, asker, held, attenuation, host, new_mark()[:16])
        return await executor.run(step, check=check)

    async def at(self, now: float) -> None:
        """Set the clock, and have the keeper look at it."""
        self.clock.time = now
        self.look()
        await asyncio.sleep(0)

    def look(self) -> None:
        """Have the keeper look now, as it does by itself within seconds."""
        self.keeper._changed.set()

    async def quiet(self, name: str) -> None:
        """Wait until no turn of a schedule goes on or waits, and what was due is decided."""
        self.look()
        await eventually(lambda: not self.keeper._changed.is_set(), within_s=10, what="the keeper looks")
        await eventually(lambda: not self.entry(name).schedule.turns, within_s=20, what=f"the turns of {name} end")

    def lines(self) -> list[dict[str, Any]]:
        """What is in the audit."""
        text = (self.directory / "audit.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def turns(self) -> list[str]:
        """The due times and causes of the turns that were begun, in order."""
        found = [line["step"] for line in self.lines() if line["step"] and line["step"]["type"] == "schedule.turn"]
        return [f"{step['cause']} {step['due'][11:19]}" for step in found]

    def left_out(self) -> list[str]:
        """Why times had no turn."""
        kind = "schedule.left_out"
        return [line["reason"] for line in self.lines() if line["step"] and line["step"]["type"] == kind]

    def outcomes(self, turn: Turn | str) -> list[dict[str, Any]]:
        """How a turn ended."""
        run = turn if isinstance(turn, str) else turn.run
        return [line["outcome"] for line in self.lines() if line["run"] == run and line["outcome"]]

    async def __aenter__(self) -> Self:
        self.detached.recover(self.directory / "audit.jsonl")
        self.keeper.recover()
        self._tasks = [asyncio.create_task(self.detached.attend()), asyncio.create_task(self.keeper.attend())]
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.desk.host.aclose()
        self.audit.close()
        for task in self._tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error


def counting(tmp_path: Path, name: str = "count", **how: Any) -> ScheduleAdd:
    """A schedule that adds a line to a file, every minute."""
    step = Exec(["sh", "-c", f"echo x >> {tmp_path}/{name}"])
    return ScheduleAdd(name, "* * * * *", steps=(step,), **how)


def count(tmp_path: Path, name: str = "count") -> int:
    file = tmp_path / name
    return len(file.read_text().splitlines()) if file.exists() else 0


async def begun(kept: Kept, name: str) -> None:
    await eventually(lambda: kept.entry(name).under_way is not None, within_s=10, what="a turn begins")
