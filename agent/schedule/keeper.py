"""The keeper of an agent's schedules: decides, when a time is due, what becomes of it; never twice, whatever the clock.

What is decided is on disk before anything of it is done, and in the audit before it begins. What stays undone is in the
audit before the keeper looks past it.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.asker import LAYER
from agent.say import say
from agent.schedule.model import SCHEDULED, Cause, Ended, Schedule, Turn, jitter, when
from agent.schedule.store import ScheduleStore, SystemClock
from agent.schedule.turn import TurnRun
from opsexec.errors import AuditUnavailable, BadStep, OpsError, UsageError
from opsexec.steps.registry import brief

if TYPE_CHECKING:
    from agent.desk import Desk

LATE_S = 30
"""Seconds after which a due time counts as missed."""

LOOK_S = 10.0
"""Seconds between looks at the clock, at most: a timer doesn't see it jump, nor this machine asleep."""

RETRY_S = 1.0


class Clock(Protocol):
    """What time it is, in seconds since 1970; it may jump either way."""

    def now(self) -> float:
        """Return the time."""
        ...


class Entry:
    """A schedule that is kept, with what is known of it in memory alone."""

    def __init__(self, schedule: Schedule, host: str) -> None:
        from agent.schedule.calendar import Calendar

        self.schedule = schedule
        self.calendar = Calendar(schedule.asked.cron, schedule.asked.timezone)
        self.offset = jitter(host, schedule.name, schedule.asked.jitter_s)
        self.driver: asyncio.Task[None] | None = None
        self.under_way: TurnRun | None = None
        self.troubled = False
        self.removed = False
        self.unseen = True
        """Whether turns that a former agent left are yet to be gone through."""
        self.unsaved = False
        self._next: tuple[int, int | None] | None = None

    def next_due(self) -> int | None:
        """Return the first due time that has not been decided, None when there is none or it is disabled."""
        if not self.schedule.enabled:
            return None
        cursor = self.schedule.cursor
        if self._next is None or self._next[0] != cursor:
            due = self.calendar.next(cursor)
            while due is not None and due in self.schedule.fired:
                due = self.calendar.next(due)
            self._next = (cursor, due)
        return self._next[1]


class Keeper:
    """All schedules of one agent."""

    def __init__(self, desk: Desk, directory: Path, clock: Clock | None = None) -> None:
        self._desk = desk
        self.clock: Clock = clock or SystemClock()
        self.store = ScheduleStore(directory)
        self.entries: dict[str, Entry] = {}
        self.unreadable: dict[str, str] = {}
        self._unrecorded: dict[str, str] = {}
        self._changed = asyncio.Event()

    def recover(self) -> int:
        """Take up what is on disk; returns how many schedules. What can't be read is said, recorded and left alone.

        What there is no room to write down now, in the audit or here, is written down once there is.
        """
        schedules, self.unreadable = self.store.load()
        for schedule in schedules:
            try:
                self.entries[schedule.name] = Entry(schedule, self._desk.name)
            except BadStep as error:  # its time zone was there when it was made
                self.unreadable[self.store.path(schedule.name).name] = error.message
        for name, why in self.unreadable.items():
            say(f"the schedule {name} is left out: {why}")
        self._unrecorded = dict(self.unreadable)
        self._record_unreadable()
        for entry in self.entries.values():
            try:
                self._drop_stale(entry)
            except (AuditUnavailable, OSError) as error:
                self._say_waits(entry, error)
            self._desk.detached.spared |= {f"{turn.run}-{turn.done}" for turn in entry.schedule.turns}
        return len(self.entries)

    def _record_unreadable(self) -> bool:
        """Put in the audit what couldn't be read; False while there is none."""
        while self._unrecorded:
            name = next(iter(self._unrecorded))
            try:
                self._desk.allow_self({"type": "schedule.unreadable", "file": name}, brief(self._unrecorded[name]))
            except AuditUnavailable:
                return False
            del self._unrecorded[name]
        return True

    def _drop_stale(self, entry: Entry) -> None:
        """Leave out turns that had not begun when the last agent ended, where missed ones are skipped.

        Raises AuditUnavailable and OSError: then it is to be done again, before anything of the schedule is.
        """
        schedule, now = entry.schedule, self.clock.now()
        for turn in list(schedule.turns) if schedule.asked.missed == "skip" else ():
            begun = turn.done or turn.begun or self._desk.detached.store.record(f"{turn.run}-0") is not None
            if not begun and now - turn.due - entry.offset > LATE_S:
                self._note(schedule, f"the turn due at {turn.due_text} had not begun when the agent ended", turn.run)
                schedule.turns.remove(turn)
                why = "the agent ended before it began"
                schedule.last = Ended(run=turn.run, due=turn.due, state="lost", detail=why, at=now)
                entry.unsaved = True
        if entry.unsaved:
            self.store.save(schedule)
        entry.unseen = entry.unsaved = False

    async def attend(self) -> None:
        """Do what is due, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wait = self._look(group)
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _look(self, group: asyncio.TaskGroup) -> float | None:
        """Decide what is due now; returns the seconds until there is something to look at again, None = no time."""
        wait = None if self._record_unreadable() else RETRY_S
        for entry in list(self.entries.values()):
            try:
                soon = self._consider(entry)
            except (OpsError, OSError) as error:
                self._say_waits(entry, error)
                soon = RETRY_S
            else:
                entry.troubled = False
            if entry.schedule.turns and not entry.unseen and (entry.driver is None or entry.driver.done()):
                entry.driver = group.create_task(self._drive(entry))
            if soon is not None:
                wait = soon if wait is None else min(wait, soon)
        return wait

    def _say_waits(self, entry: Entry, error: Exception) -> None:
        if not entry.troubled:
            say(f"the schedule {entry.schedule.name} waits: {error}")
        entry.troubled = True

    def _consider(self, entry: Entry) -> float | None:
        """Decide the due times of one schedule that have come; returns the seconds until the next, at most LOOK_S."""
        schedule = entry.schedule
        if entry.unseen:
            self._drop_stale(entry)
        if not schedule.enabled:
            return None
        now = self.clock.now() - entry.offset
        if now < schedule.cursor:
            schedule.put_back(int(now))
        due = entry.next_due()
        if due is None:
            return None
        if due > now:
            return min(LOOK_S, due - now)
        self._decide(entry, int(now))
        return 0.0

    def _decide(self, entry: Entry, now: int) -> None:
        """Decide every due time up to now: which have a turn, and which go into the audit as left out."""
        schedule = entry.schedule
        before_all = schedule.cursor, schedule.fired, schedule.floor, list(schedule.turns)
        try:
            ended = self._decided(entry, now)
            self.store.save(schedule)
        except (OpsError, OSError):  # nothing of it is done before it is written down
            schedule.cursor, schedule.fired, schedule.floor, schedule.turns = before_all
            raise
        if ended is not None and entry.under_way is not None:
            entry.under_way.end(ended)

    def _decided(self, entry: Entry, now: int) -> str | None:
        """Make up the turns of what is due; returns why the turn under way is to end, None when it isn't."""
        schedule, asked = entry.schedule, entry.schedule.asked
        found, more = entry.calendar.between(schedule.cursor, now, max(asked.missed_limit, LATE_S + 1))
        found = [due for due in found if due not in schedule.fired]
        missed = [due for due in found if now - due > LATE_S]
        kept = {"skip": 0, "once": 1, "all": asked.missed_limit}[asked.missed]
        left_out = missed[: len(missed) - kept] if kept else missed
        turns = [schedule.turn_of(due, "missed") for due in missed[len(left_out) :]]
        if left_out:
            count = f"{'at least ' if more else ''}{len(left_out)}"
            self._note(schedule, f"{count} missed, the last at {when(left_out[-1])}; policy {asked.missed}", None)
        ended: str | None = None
        for due in found[len(missed) :]:
            turn = schedule.turn_of(due, "due")
            before = [*schedule.turns, *turns]
            if not before or (asked.overlap == "queue" and len(before) < 2):
                turns.append(turn)
            elif asked.overlap == "kill":
                under_way = schedule.turns[:1]
                for waiting in before[len(under_way) :]:
                    self._note(schedule, f"the turn due at {waiting.due_text} gives way to the next", waiting.run)
                schedule.turns, turns = under_way, [turn]
                ended = f"its next turn was due, at {turn.due_text}"
            else:
                self._note(schedule, f"due at {turn.due_text}, and the last turn goes on; policy {asked.overlap}", None)
        schedule.take(turns, now)
        return ended

    async def _drive(self, entry: Entry) -> None:
        """Do the turns of one schedule, one after another."""
        schedule = entry.schedule

        def save() -> None:
            if not entry.removed:
                self.store.save(schedule)

        while schedule.turns:
            turn = schedule.turns[0]
            entry.under_way = TurnRun(self._desk, schedule, turn, save)
            try:
                schedule.last = await entry.under_way.run()
                schedule.turns.remove(turn)
                save()
            except (AuditUnavailable, OSError) as error:
                say(f"the schedule {schedule.name} waits: {error}")
                await asyncio.sleep(RETRY_S)
            finally:
                entry.under_way = None

    def require_free(self, name: str) -> None:
        """Raise UsageError when a schedule's name is taken."""
        if name in self.entries or self.store.is_taken(name):
            raise UsageError(f"there is a schedule {name} already", hint="remove it first, or name another")

    def add(self, schedule: Schedule) -> None:
        """Keep a schedule; raises UsageError when its name is taken, BadStep, and OSError."""
        self.require_free(schedule.name)
        entry = Entry(schedule, self._desk.name)
        entry.unseen = False
        self.store.save(schedule)
        self.entries[schedule.name] = entry
        self._changed.set()

    def remove(self, name: str) -> None:
        """Forget a schedule; a turn under way goes on, what waits is dropped. Raises OSError."""
        self.store.remove(name)
        entry = self.entries.pop(name)
        entry.removed = True
        del entry.schedule.turns[1:]

    def switch(self, entry: Entry, enabled: bool) -> None:
        """Enable or disable one; times that were due meanwhile count for nothing. Raises OSError."""
        schedule = entry.schedule
        before = schedule.enabled, schedule.cursor
        schedule.enabled = enabled
        if enabled:
            schedule.cursor = max(schedule.cursor, int(self.clock.now() - entry.offset))
        try:
            self.store.save(schedule)
        except OSError:
            schedule.enabled, schedule.cursor = before
            raise
        self._changed.set()

    def require_idle(self, entry: Entry) -> None:
        """Raise UsageError while a turn of a schedule goes on or waits."""
        schedule = entry.schedule
        if schedule.turns:
            text = f"a turn of {schedule.name} goes on: {schedule.turns[0].run}"
            raise UsageError(text, hint="wait, or end that run")

    def run_now(self, entry: Entry, asked_by: str) -> str:
        """Begin a turn that no calendar asked for, and return its id; raises UsageError while one goes on, OSError."""
        schedule = entry.schedule
        self.require_idle(entry)
        cause: Cause = "asked"
        run = f"{SCHEDULED}{schedule.uid}-r{secrets.token_hex(4)}"
        schedule.turns.append(Turn(run=run, due=int(self.clock.now()), cause=cause, asked_by=asked_by))
        try:
            self.store.save(schedule)
        except OSError:
            schedule.turns.pop()
            raise
        self._changed.set()
        return run

    def _note(self, schedule: Schedule, why: str, run: str | None) -> None:
        """Put in the audit what is left out; raises AuditUnavailable."""
        line: dict[str, Any] = {
            "host": self._desk.name,
            "listener": f"schedule:{schedule.name}",
            "principal": schedule.owner,
            "step": {"type": "schedule.left_out", "name": schedule.name},
            "layer": LAYER,
            "reason": brief(why),
            "run": run,
        }
        self._desk.audit.append(line)
