"""What is kept of a schedule: what was asked, whose it is, how far its calendar is done with, and its turns."""

from __future__ import annotations

import hashlib
import time
from typing import Literal

import msgspec

from opsexec.capability import CapabilitySet
from opsexec.steps.schedule import ScheduleAdd
from opsexec.wire import Grants, unpack_grants

KEPT_FIRED = 512

SCHEDULED = "sched-"
"""What the ids of schedules' runs begin with. They can be foreseen, so no caller may choose one."""

FAMILIES = frozenset({"process", "files", "services", "observe"})
"""The families of steps that can be done when nobody is there."""

Cause = Literal["due", "missed", "asked"]
State = Literal["ok", "failed", "lost", "skipped"]


class Turn(msgspec.Struct, kw_only=True):
    """One time that a schedule is done. `run` names it; its steps are `<run>-0`, `<run>-1` and so on.

    `announced`: its cause is in the audit. `done`: how many of its steps have ended well. `begun`: the next one, which
    can't be taken up by another agent, has begun.
    """

    run: str
    due: int
    cause: Cause
    asked_by: str | None = None
    announced: bool = False
    done: int = 0
    begun: bool = False

    @property
    def due_text(self) -> str:
        """The due time as people read it, in UTC."""
        return when(self.due)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the last turn ended. `at`: seconds since 1970."""

    run: str
    due: int
    state: State
    detail: str
    at: float


class Schedule(msgspec.Struct, kw_only=True):
    """One schedule as it is kept.

    `uid`: chosen by the agent, so that nobody can guess the runs' ids. `attenuation`: what the caller had narrowed
    itself to when it was made. `cursor`: due times up to it are over and done with; `fired`: the last ones that had a
    turn, which a clock put back doesn't bring again.
    """

    asked: ScheduleAdd
    uid: str
    owner: str
    listener: str
    created: float
    enabled: bool
    attenuation: tuple[Grants, ...] | None
    cursor: int
    fired: list[int] = []
    floor: int = 0
    turns: list[Turn] = []
    last: Ended | None = None

    @property
    def name(self) -> str:
        """Its name on this host."""
        return self.asked.name

    def narrowed(self) -> CapabilitySet | None:
        """Return what its maker had narrowed itself to."""
        return None if self.attenuation is None else unpack_grants(self.attenuation)

    def turn_of(self, due: int, cause: Cause) -> Turn:
        """Return the turn of a due time: one due time has one id, whenever it is asked for."""
        return Turn(run=f"{SCHEDULED}{self.uid}-{due}", due=due, cause=cause)

    def take(self, turns: list[Turn], cursor: int) -> None:
        """Note that due times up to `cursor` are decided, and these of them had a turn."""
        self.cursor = cursor
        self.fired = sorted({*self.fired, *(turn.due for turn in turns)})
        if len(self.fired) > KEPT_FIRED:
            self.floor = max(self.floor, self.fired[-KEPT_FIRED - 1])
            self.fired = self.fired[-KEPT_FIRED:]
        self.turns += turns

    def put_back(self, now: int) -> None:
        """Follow a clock that was put back: what had a turn has had it, what had none may be due again.

        Before it was made a schedule is never due: a clock that says so is wrong.
        """
        self.cursor = max(now - 1, self.floor, int(self.created))


def jitter(host: str, name: str, most_s: float) -> float:
    """Return by how many seconds a schedule of a host is late: always the same, and spread over hosts."""
    drawn = int.from_bytes(hashlib.sha256(f"{host}\0{name}".encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return most_s * (drawn / 2**64)


def when(at: float) -> str:
    """Return a time as RFC 3339 has it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
