"""What is shown while a runbook runs.

Plain lines where output is piped, a live table on a terminal, nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

import msgspec

from opsexec.runbook.report import Report, StepReport


class RunStarted(msgspec.Struct, frozen=True):
    """The run begins."""

    run: str
    name: str
    hosts: tuple[str, ...]
    check: bool


class TierStarted(msgspec.Struct, frozen=True):
    """A tier's batch begins: `batch` of `batches`, counted from 1."""

    tier: str
    batch: int
    batches: int
    hosts: tuple[str, ...]


class StepStarted(msgspec.Struct, frozen=True):
    """A step begins on a host; `attempt` counts from 1."""

    host: str
    step: str
    title: str
    attempt: int


class StepFinished(msgspec.Struct, frozen=True):
    """A step ended on a host. `diff`: what it changed, where that was asked for."""

    host: str
    step: str
    report: StepReport
    diff: str | None = None


class HostFinished(msgspec.Struct, frozen=True):
    """A host is done."""

    host: str
    status: str


class Notice(msgspec.Struct, frozen=True):
    """Something a person should read."""

    text: str


class RunFinished(msgspec.Struct, frozen=True):
    """The run is over."""

    report: Report


Event = RunStarted | TierStarted | StepStarted | StepFinished | HostFinished | Notice | RunFinished


class Progress(Protocol):
    """Takes events as they happen; must not block."""

    def on(self, event: Event) -> None:
        """Take one event."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """A context in which the terminal belongs to someone else (a question to the person)."""
        ...


class SilentProgress:
    """Shows nothing: for `--json`, and for Python callers that read the report."""

    def on(self, event: Event) -> None:
        """Take one event."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing to pause."""
        yield


class PlainProgress:
    """One line an event that a person wants to read, flushed at once: for pipes, logs and CI."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout

    def on(self, event: Event) -> None:
        """Take one event."""
        for line in plain_lines(event):
            print(printable(line), file=self._out)
        self._out.flush()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Lines don't mind a question between them."""
        yield


def plain_lines(event: Event) -> list[str]:
    """Return the lines that say an event."""
    if isinstance(event, RunStarted):
        mode = " (check: nothing is changed)" if event.check else ""
        return [f"run {event.run}: {event.name} on {_count(len(event.hosts))}{mode}"]
    if isinstance(event, TierStarted):
        part = f", batch {event.batch} of {event.batches}" if event.batches > 1 else ""
        return [f"tier {event.tier}{part}: {', '.join(event.hosts)}"]
    if isinstance(event, StepStarted):
        return [f"{event.host} | {event.title}: try {event.attempt}"] if event.attempt > 1 else []
    if isinstance(event, StepFinished):
        report = event.report
        lines = [f"{event.host} | {report.name}: {report.status} ({report.duration_s:.2f} s)"]
        if report.error:
            lines[0] += f": {printable(report.error)}"
        if report.note:
            lines.append(f"{event.host} |   note: {report.note}")
        if event.diff:
            lines += [f"{event.host} |   {printable(line)}" for line in event.diff.removesuffix("\n").split("\n")]
        return lines
    if isinstance(event, HostFinished):
        return []
    if isinstance(event, Notice):
        return [f"note: {event.text}"]
    totals = ", ".join(f"{count} {status}" for status, count in event.report.totals.items() if count)
    lines = [f"run {event.report.run}: {totals or 'nothing to do'}"]
    if event.report.stopped:
        lines.append(f"stopped: {event.report.stopped}")
    return lines


def printable(text: str) -> str:
    """Return one line of text from a host without the control characters that could drive a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else "�" for c in text.replace("\n", " / "))


def _count(hosts: int) -> str:
    return "1 host" if hosts == 1 else f"{hosts} hosts"
