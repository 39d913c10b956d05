"""Reading a journal: what each host has behind it. Pure.

A torn end is cut off, damage elsewhere is an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from opsexec.errors import UsageError
from opsexec.runbook.report import STATUSES, StepReport

GOOD = ("ok", "changed", "skipped")


class BadJournal(UsageError):
    """A journal that is damaged elsewhere than at its end."""

    code = "bad_journal"


@dataclass
class FinishedStep:
    """One finished step: its report, whether it counts as good, and what it registered."""

    report: StepReport
    good: bool
    changed: bool
    registered: dict[str, Any] | None = None


@dataclass
class HostState:
    """One host: each step's last outcome, the steps begun and not finished, its status when it was done."""

    finished: dict[str, FinishedStep] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    status: str | None = None

    @property
    def done(self) -> bool:
        """True when this host needs nothing more."""
        return self.status in GOOD

    def good_prefix(self, keys: list[str]) -> list[str]:
        """Return the keys of the steps that are good without a gap from the first on.

        Those are not run again.
        """
        prefix = []
        for key in keys:
            step = self.finished.get(key)
            if step is None or not step.good or key in self.begun:
                break
            prefix.append(key)
        return prefix


@dataclass
class JournalState:
    """A whole journal. `good_bytes`: its length without a torn last line."""

    header: dict[str, Any]
    hosts: dict[str, HostState]
    good_bytes: int


def read_journal(data: bytes, file: str) -> JournalState:
    """Read a journal's bytes; raises BadJournal for damage that no crash leaves behind."""
    records: list[dict[str, Any]] = []
    good = at = 0
    torn: int | None = None
    lines = data.split(b"\n")
    complete, rest = lines[:-1], lines[-1]
    for number, line in enumerate(complete, 1):
        at += len(line) + 1
        record = _record(line)
        if record is None:
            torn = torn or number
            continue
        if torn is not None:
            raise BadJournal(f"{file}:{torn}: damaged, with good lines after it", hint="start a new run")
        records.append(record)
        good = at
    if torn is None and rest:
        torn = len(lines)
    if not records or records[0].get("kind") != "run" or not isinstance(records[0].get("digest"), str):
        raise BadJournal(f"{file}:1: no run's journal begins here", hint="start a new run")
    if records[0].get("version") != 1:
        raise BadJournal(f"{file}:1: written by another version", hint="resume with the version that began it")
    state = JournalState(records[0], {}, good)
    for number, record in enumerate(records[1:], 2):
        try:
            _apply(state, record)
        except (KeyError, TypeError, ValueError) as error:
            raise BadJournal(f"{file}:{number}: not a record ({error})", hint="start a new run") from error
    return state


def other_hosts(past: JournalState, now: list[str]) -> list[str]:
    """Return what a person should be told when a run goes on with other hosts than it began with."""
    begun = past.header.get("hosts", {})
    lost = [name for name in begun if name not in now and not (name in past.hosts and past.hosts[name].done)]
    return [
        *(f"{name} was in this run and is no longer: what was left to do there is not done" for name in lost),
        *(f"{name} was not in this run when it began: every step is for it" for name in now if name not in begun),
    ]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else None


def _apply(state: JournalState, record: dict[str, Any]) -> None:
    kind = record["kind"]
    if kind == "resumed":
        for host in state.hosts.values():
            host.status = host.status if host.done else None
    if kind not in ("started", "finished", "host"):
        return
    host = state.hosts.setdefault(record["host"], HostState())
    if kind == "host":
        host.status = record["status"]
    elif kind == "started":
        host.begun.add(record["step"])
        host.status = None
    else:
        if record["status"] not in STATUSES:
            raise ValueError(f"status {record['status']!r}")
        host.begun.discard(record["step"])
        report = StepReport(
            name=record["name"],
            status=record["status"],
            changed=record["changed"],
            exit_code=record["exit_code"],
            duration_s=record["duration_s"],
            stdout_tail=record["stdout_tail"],
            error=record["error"],
            note=record.get("note"),
        )
        good = record["status"] in GOOD or record.get("tolerated", False) is True
        host.finished[record["step"]] = FinishedStep(report, good, bool(record["changed"]), record.get("registered"))
