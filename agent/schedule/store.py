"""Schedules on disk: a file each, there whole or not at all. One that can't be read stands in nobody's way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from agent.run_store import write_whole
from agent.schedule.model import Schedule
from opsexec.errors import BadStep, HostUnsuitable, OpsError
from opsexec.plain_file import NotPlain, read_plain
from opsexec.steps.schedule import schedule_name

SUFFIX = ".json"
MAX_BYTES = 64 << 20
"""Far more than any request holds from which a schedule is made, in bytes."""


class ScheduleStore:
    """The directory of an agent's schedules."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, name: str) -> Path:
        """Return a schedule's file."""
        return self._directory / (schedule_name(name) + SUFFIX)

    def load(self) -> tuple[list[Schedule], dict[str, str]]:
        """Return the schedules, and of each file that is none why not."""
        schedules: list[Schedule] = []
        unreadable: dict[str, str] = {}
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:  # it is made with the first schedule: an agent begins also where there is no room
            return schedules, unreadable
        for name in names:
            try:
                if name.endswith(".new"):  # what a crash left of a file that was not written whole
                    (self._directory / name).unlink()
                else:
                    schedules.append(self._read(name))
            except OpsError as error:
                unreadable[name] = error.message
            except OSError as error:
                unreadable[name] = f"can't be removed: {error.strerror}"
        return schedules, unreadable

    def _read(self, name: str) -> Schedule:
        try:
            data, _ = read_plain(self._directory / name, MAX_BYTES)
            if len(data) > MAX_BYTES:
                raise HostUnsuitable(f"is larger than {MAX_BYTES >> 20} MiB")
            found = msgspec.json.decode(data, type=Schedule, strict=True)
        except NotPlain as error:
            raise HostUnsuitable("is not a regular file") from error
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HostUnsuitable(f"can't be read: {error}") from error
        if name != found.name + SUFFIX:
            raise HostUnsuitable(f"holds the schedule {found.name}")
        return found

    def save(self, schedule: Schedule) -> None:
        """Write a schedule down; it is on disk when this returns. Raises OSError, and BadStep for text that is none."""
        try:
            data = msgspec.json.encode(schedule)
        except UnicodeEncodeError as error:
            raise BadStep("a schedule holds text that is not UTF-8", hint="use names that are") from error
        self._directory.mkdir(mode=0o700, exist_ok=True)
        write_whole(self.path(schedule.name), data)
        self._sync()

    def remove(self, name: str) -> None:
        """Forget a schedule; raises OSError."""
        self.path(name).unlink(missing_ok=True)
        self._sync()

    def is_taken(self, name: str) -> bool:
        """True when a file stands there, readable or not."""
        return self.path(name).exists()

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class SystemClock:
    """This machine's clock. `now`: seconds since 1970, which may jump either way."""

    def now(self) -> float:
        """Return the time."""
        return time.time()
