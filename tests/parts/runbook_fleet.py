"""Runbooks over fake hosts: executors, handlers and audit records are the real ones."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from opsexec.errors import (
    HostUnreachable,
)
from opsexec.inventory import Inventory, InventoryHost
from opsexec.runbook import (
    Journal,
    Report,
    Runbook,
    RunOptions,
    execute,
)
from opsexec.testing import FakeHost, MemoryAudit, fake_executor


class Fleet:
    """An inventory of fake hosts, and the `connect` that reaches them."""

    def __init__(self, **hosts: FakeHost | Mapping[str, Any]) -> None:
        self.hosts = {n: h if isinstance(h, FakeHost) else FakeHost(n, answers=h) for n, h in hosts.items()}
        self.details: dict[str, dict[str, Any]] = {}
        self.urls: dict[str, str] = {}
        self.opened: list[str] = []
        self.down: set[str] = set()
        self.open = self.busy = 0
        self.audit = MemoryAudit()

    @property
    def inventory(self) -> Inventory:
        return Inventory(
            InventoryHost(name=name, url=self.urls.get(name, f"ssh://{name}"), **self.details.get(name, {}))
            for name in self.hosts
        )

    def connect(self, host, capabilities):
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def opened():
            self.opened.append(host.name)
            if host.name in self.down:
                raise HostUnreachable("no route to host", host=host.name)
            self.open += 1
            self.busy = max(self.busy, self.open)
            try:
                async with fake_executor(self.hosts[host.name], capabilities, audit=self.audit) as ex:
                    yield ex
            finally:
                self.open -= 1

        return opened()

    async def run(self, runbook: Runbook | str, journal: Journal | None = None, **options: Any) -> Report:
        progress = options.pop("progress", None)
        made = load(runbook) if isinstance(runbook, str) else runbook
        return await execute(made, self.inventory, self.connect, RunOptions(**options), progress, journal)

    def ran(self, name: str) -> list[list[str]]:
        return [call[1:] for call in self.hosts[name].calls if call[0] == "process"]


def load(steps: str, head: str = "") -> Runbook:
    text = textwrap.dedent(steps)
    if "steps:" not in text:
        text = f"name: t\nhosts: all\n{textwrap.dedent(head)}steps:\n{textwrap.indent(text, '  ')}"
    return Runbook.parse(text, "r.yaml")


def statuses(report: Report, host: str = "a") -> list[str]:
    return [step.status for step in report.hosts[host].steps]
