"""`Hub`: who follows what of this host. Its sources work only while somebody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from agent.events.clock import stamp
from agent.events.feed import Event, Feed
from agent.say import say
from opsexec.executor import AuditSink

STEP_TEXT = 200
NEEDS_SHOWN = 8


class Source(Protocol):
    """Something that can be followed."""

    async def run(self, tell: Callable[[Event], None]) -> None:
        """Tell events until cancelled."""
        ...

    def now(self) -> Event | None:
        """Return what a new follower is told first; None while that isn't known."""
        ...


class Hub:
    """Sources are offered by name. Runs are told by the audit, which hears of each one, whoever starts it."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._followers: dict[str, list[Feed]] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._of_runs: list[tuple[Feed, Callable[[str, str], bool]]] = []

    def offer(self, name: str, source: Source) -> None:
        """Let a source be followed under this name."""
        self._sources[name] = source
        self._followers[name] = []

    @contextmanager
    def following(self, names: Sequence[str], feed: Feed) -> Iterator[None]:
        """Feed the events of these sources; one starts with its first follower and ends with its last."""
        mine = [name for name in names if name in self._sources]
        for name in mine:
            self._join(name, feed)
        try:
            yield
        finally:
            for name in mine:
                self._leave(name, feed)

    def _join(self, name: str, feed: Feed) -> None:
        source, followers = self._sources[name], self._followers[name]
        followers.append(feed)
        if name not in self._working or self._working[name].done():  # it may have failed under those who follow it
            self._working[name] = working = asyncio.create_task(source.run(lambda event: self._tell(name, event)))
            working.add_done_callback(_report)
        elif (event := source.now()) is not None:
            feed.put(event)

    def _leave(self, name: str, feed: Feed) -> None:
        self._followers[name].remove(feed)
        if not self._followers[name]:
            self._working.pop(name).cancel()

    def _tell(self, name: str, event: Event) -> None:
        for feed in self._followers[name]:
            feed.put(event)

    @contextmanager
    def following_runs(self, feed: Feed, admits: Callable[[str, str], bool]) -> Iterator[None]:
        """Feed what begins and ends, of the runs that `admits(run, principal)` lets through."""
        entry = (feed, admits)
        self._of_runs.append(entry)
        try:
            yield
        finally:
            self._of_runs.remove(entry)

    def heard(self, record: Mapping[str, Any]) -> None:
        """Take an audit record; those that begin or end a run are told."""
        if not self._of_runs or (event := run_event(record)) is None:
            return
        for feed, admits in self._of_runs:
            if admits(event["run"], event["principal"]):
                feed.put(event)


def run_event(record: Mapping[str, Any]) -> Event | None:
    """Return the event that an audit record of a run is; None for any other record."""
    run, outcome = record.get("run"), record.get("outcome")
    if run is None:
        return None
    event: Event = {"ts": stamp(), "event": "run", "run": run, "principal": record.get("principal")}
    if outcome is not None:
        shown = {name: outcome.get(name) for name in ("exit_code", "signal", "duration_s", "error") if name in outcome}
        return {**event, "what": "ended", **shown}
    if record.get("decision") != "allow" or not record.get("requires"):
        return None
    needs = [str(need)[:STEP_TEXT] for need in record["requires"][:NEEDS_SHOWN]]
    return {**event, "what": "started", "step": str((record.get("step") or {}).get("type")), "requires": needs}


def _report(working: asyncio.Task[None]) -> None:
    if not working.cancelled() and (error := working.exception()) is not None:
        say(f"a source of events failed ({type(error).__name__})")


class TellingAudit:
    """An AuditSink that lets the hub hear what was recorded, after it was."""

    def __init__(self, audit: AuditSink, hub: Hub) -> None:
        self._audit = audit
        self._hub = hub

    def append(self, record: Mapping[str, Any]) -> object:
        """Record it; raises AuditUnavailable, and then nobody hears of it."""
        entry = self._audit.append(record)
        self._hub.heard(record)
        return entry
