"""The report: what each step did on each host, as `--json` prints it, and the exit status it stands for."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Status = Literal["ok", "changed", "skipped", "failed", "unreachable"]
STATUSES: tuple[Status, ...] = ("ok", "changed", "skipped", "failed", "unreachable")
TAIL_CHARACTERS = 2000


class StepReport(msgspec.Struct, kw_only=True):
    """One step on one host. `duration_s`: seconds over all tries; `stdout_tail`: the last 2000 characters.

    `note`: something a reader must know (it was run again after a resume); `diff`: what changed, where that was
    asked for. Both are in the JSON only where there is one.
    """

    name: str
    status: Status
    changed: bool = False
    exit_code: int | None = None
    duration_s: float = 0.0
    stdout_tail: str = ""
    error: str | None = None
    note: str | None = None
    diff: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the documented object."""
        data = msgspec.structs.asdict(self)
        data["duration_s"] = round(self.duration_s, 6)
        for name in ("note", "diff"):
            if data[name] is None:
                del data[name]
        return data


class HostReport(msgspec.Struct):
    """One host: its steps in the order they were taken, and how it ended.

    "skipped" = it was never its turn.
    """

    name: str
    steps: list[StepReport] = []
    status: Status = "skipped"


class Report(msgspec.Struct):
    """One run over all its hosts. `stopped`: why hosts were held back.

    `notices`: what a person should read.
    """

    run: str
    hosts: dict[str, HostReport] = {}
    stopped: str | None = None
    stopped_by_gate: bool = False
    interrupted: bool = False
    notices: list[str] = []

    @property
    def totals(self) -> dict[str, int]:
        """How many hosts ended in each status."""
        counts: dict[str, int] = dict.fromkeys(STATUSES, 0)
        for host in self.hosts.values():
            counts[host.status] += 1
        return counts

    @property
    def ok(self) -> bool:
        """True when no host failed and none was held back."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """0 = all went well, 1 = a host failed, 3 = a gate or no host reached, 130 = interrupted."""
        totals = self.totals
        if self.interrupted:
            return 130
        if totals["failed"]:
            return 1
        if totals["unreachable"]:
            return 1 if totals["unreachable"] < len(self.hosts) else 3
        return 3 if self.stopped_by_gate else 0

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "run": self.run,
            "hosts": {name: {"steps": [s.as_json() for s in host.steps]} for name, host in self.hosts.items()},
            "totals": self.totals,
        }
