"""The live table on a terminal, and the table at the end (rich is loaded only when one of them is shown)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from opsexec.runbook.progress import (
    Event,
    HostFinished,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    plain_lines,
    printable,
)
from opsexec.runbook.report import STATUSES, Report

STYLE = {
    "ok": "green",
    "changed": "yellow",
    "skipped": "dim",
    "failed": "bold red",
    "unreachable": "bold magenta",
}
MAX_ROWS = 20


class LiveProgress:
    """Finished steps scroll by as lines; below them stands what each busy host is doing now."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False)
        self._now: dict[str, str] = {}
        self._waiting = 0
        self._live: Live | None = None

    def on(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, RunStarted):
            self._waiting = len(event.hosts)
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        if isinstance(event, StepStarted):
            self._now[event.host] = event.title + (f" (try {event.attempt})" if event.attempt > 1 else "")
        elif isinstance(event, HostFinished):
            self._now.pop(event.host, None)
            self._waiting -= 1
        elif isinstance(event, RunFinished):
            self._stop()
            self._console.print(report_table(event.report))
            return
        for line in plain_lines(event):
            style = STYLE[event.report.status] if isinstance(event, StepFinished) else None
            self._console.print(escape(printable(line)), style=style, soft_wrap=True)
        if self._live is not None:
            self._live.update(self._busy())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the live part off the screen while a person is asked."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        yield
        if live is not None:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()

    def _busy(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for host, doing in list(self._now.items())[:MAX_ROWS]:
            table.add_row(f"[bold]{escape(host)}[/]", escape(printable(doing)))
        table.add_row("[dim]to go[/]", f"[dim]{self._waiting}[/]")
        return table

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def report_table(report: Report) -> Table:
    """Return the summary: a row a host, its counts by status, and its first error."""
    table = Table(title=f"run {report.run}", caption=escape(printable(report.stopped)) if report.stopped else None)
    table.add_column("host")
    table.add_column("result")
    for status in STATUSES[:3]:
        table.add_column(status, justify="right")
    table.add_column("error", overflow="fold")
    for name, host in report.hosts.items():
        counts = [str(sum(step.status == status for step in host.steps)) for status in STATUSES[:3]]
        error = next((f"{s.name}: {s.error}" for s in host.steps if s.error), "")
        table.add_row(escape(name), f"[{STYLE[host.status]}]{host.status}[/]", *counts, escape(printable(error)))
    return table
