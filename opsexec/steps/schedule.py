"""Steps on the schedules that an ops-agent keeps: what is to be done there, and when, without the caller."""

from __future__ import annotations

import re
from typing import Literal

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.base import Step
from opsexec.steps.files import Link, MakeDir, RemoveFile, SetMode, WriteFile
from opsexec.steps.process import Exec, Shell
from opsexec.steps.services import ServiceControl

Scheduled = Exec | Shell | WriteFile | RemoveFile | MakeDir | Link | SetMode | ServiceControl
"""The steps that a schedule may hold."""

Overlap = Literal["skip", "queue", "kill"]
Missed = Literal["skip", "once", "all"]

MAX_STEPS = 64
MAX_MISSED = 100
MAX_JITTER_S = 86400.0
MAX_RUNBOOK_BYTES = 256 << 10
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*){0,3}\Z")


def schedule_name(name: str) -> str:
    """Return a valid schedule's name; raises BadStep."""
    if not _NAME.match(name):
        hint = "1 to 64 lower-case letters, digits and . _ -, the first a letter or digit"
        raise BadStep(f"{name[:80]!r} is not a schedule's name", hint=hint)
    return name


class ScheduleAdd(Step, frozen=True, tag="schedule_add"):
    """Keep a schedule: `steps` in order, or a runbook's text, each time the calendar says so.

    `cron`: five fields, or six with seconds first; `timezone`: an IANA name. `overlap`: what to do while the last turn
    goes on: skip this one, let one wait, or end the last. `missed`: what to do about due times that passed while no
    agent was there: nothing, one turn for them all, or the last `missed_limit` of them one after another. `jitter_s`:
    the turns begin up to so many seconds later, always the same for one schedule of one host. The caller's own
    capabilities bind every turn, beside what the owner is granted then. No Secret can be kept in it.
    """

    family = "agent"

    name: str
    cron: str
    timezone: str = "UTC"
    steps: tuple[Scheduled, ...] = ()
    runbook: str | None = None
    overlap: Overlap = "skip"
    missed: Missed = "skip"
    missed_limit: int = 10
    jitter_s: float = 0.0
    enabled: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        schedule_name(self.name)
        if not 0 < len(self.cron) <= 200 or not self.cron.isascii() or not self.cron.isprintable():
            text = "the cron expression is empty, over 200 characters or not plain text"
            raise BadStep(text, hint='like "0 3 * * *"')
        if len(self.timezone) > 64 or not _ZONE.match(self.timezone):
            raise BadStep(f"{self.timezone[:64]!r} is not a time zone's name", hint="like Europe/Berlin")
        if bool(self.steps) == (self.runbook is not None) or len(self.steps) > MAX_STEPS:
            raise BadStep(f"a schedule holds 1 to {MAX_STEPS} steps, or a runbook", hint="give one of the two")
        if self.runbook is not None and not 0 < len(self.runbook) <= MAX_RUNBOOK_BYTES:
            raise BadStep(f"the runbook is empty or over {MAX_RUNBOOK_BYTES} characters", hint="give its text")
        if not 1 <= self.missed_limit <= MAX_MISSED:
            raise BadStep(f"missed_limit is not 1 to {MAX_MISSED}")
        if not 0 <= self.jitter_s <= MAX_JITTER_S:
            raise BadStep(f"jitter_s is not 0 to {MAX_JITTER_S:g} seconds")
        if self.run_as is not None or self.timeout_s is not None:
            raise BadStep("run_as and timeout_s belong to the steps of a schedule", hint="set them there")
        for step in self.steps:
            _no_secret(step)

    def requires(self) -> tuple[Requirement, ...]:
        needs = [Requirement("schedule.manage", self.name)]
        for step in self.steps:
            needs += step.requires()
        return tuple(dict.fromkeys(needs))


def _no_secret(step: Step) -> None:
    for name in step.__struct_fields__:
        value = getattr(step, name)
        if any(isinstance(each, Secret) for each in (value.values() if isinstance(value, dict) else (value,))):
            text = f"{name} is secret, and a schedule is kept on the host's disk"
            raise BadStep(text, hint="read it there, from a file")


class OfSchedule(Step, frozen=True):
    """A step about one schedule that is kept on the host."""

    family = "agent"

    name: str

    def __post_init__(self) -> None:
        super().__post_init__()
        schedule_name(self.name)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("schedule.manage", self.name),)


class ScheduleRemove(OfSchedule, frozen=True, tag="schedule_remove"):
    """Forget a schedule; a turn that goes on goes on to its end. One that isn't there is no change."""


class ScheduleSwitch(OfSchedule, frozen=True, tag="schedule_switch"):
    """Enable or disable a schedule; due times that pass while it is disabled count for nothing."""

    enabled: bool


class ScheduleRun(OfSchedule, frozen=True, tag="schedule_run"):
    """Begin a turn of a schedule now; answers with its id and doesn't wait for it."""
