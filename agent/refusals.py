"""Refusals in the audit, bounded: who is refused again and again costs the log a few lines, not one each time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from agent.say import say
from opsexec.errors import AuditUnavailable
from opsexec.executor import AuditSink

WINDOW_S = 60.0
LINES = 20
"""Lines of its own that a principal's refusals get in each window. Beyond them only the first of each kind of step has
one, and the rest are counted: a line each time their number has doubled, and one when the window is over."""

KINDS = 32
PRINCIPALS = 1024
"""How many are told apart at once; beyond that they share one count, so that names can't fill the memory either."""

COUNT = "refusals.counted"
LOOK_S = 1.0

Key = tuple[object, object, object]


class Tally:
    """The refusals of one principal at one listener in one window."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.lines = 0
        self.seen: set[str] = set()
        self.counted: Counter[str] = Counter()
        self.written = 0
        self.last = ""

    @property
    def waiting(self) -> int:
        """How many are counted that no line has told of yet."""
        return self.counted.total() - self.written


class BoundedRefusals:
    """Implements AuditSink over another: refusals are bounded, everything else goes through as it is.

    What is allowed, what came of it, and the first refusal of each kind are never counted instead of written.
    `clock`: seconds that only grow.
    """

    def __init__(self, audit: AuditSink, host: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._audit = audit
        self._host = host
        self._clock = clock
        self._tallies: dict[Key, Tally] = {}

    def append(self, record: Mapping[str, Any]) -> object:
        """Record it, or count it; raises AuditUnavailable."""
        if record.get("decision") != "deny":
            return self._audit.append(record)
        key: Key = (record.get("listener"), record.get("principal"), record.get("layer"))
        key, tally = self._tally(key)
        kind = _kind(record)
        if kind not in tally.seen and len(tally.seen) >= KINDS:
            kind = "(others)"
        if kind not in tally.seen or tally.lines < LINES:
            appended = self._audit.append(record)
            tally.seen.add(kind)
            tally.lines += 1
            return appended
        tally.counted[kind] += 1
        tally.last = str(record.get("reason"))[:500]
        if tally.waiting >= max(LINES, tally.written):
            self._write(key, tally)
        return None

    def _tally(self, key: Key) -> tuple[Key, Tally]:
        """Return the count a refusal belongs to, and whose that is."""
        now = self._clock()
        found = self._tallies.get(key)
        if found is None and len(self._tallies) >= PRINCIPALS:
            key = ("(several)", None, key[2])
            found = self._tallies.get(key)
        if found is not None and now - found.begun >= WINDOW_S:
            self._close(key, found)
            found = None
        if found is None:
            found = self._tallies[key] = Tally(now)
        return key, found

    def _close(self, key: Key, tally: Tally) -> None:
        if tally.waiting:
            self._write(key, tally)
        del self._tallies[key]

    def _write(self, key: Key, tally: Tally) -> None:
        listener, principal, layer = key
        waiting = tally.waiting
        step = {"type": COUNT, "since_s": round(self._clock() - tally.begun, 3), "kinds": dict(tally.counted)}
        self._audit.append(
            {
                "host": self._host,
                "listener": listener,
                "principal": principal,
                "step": step,
                "decision": "deny",
                "layer": layer,
                "reason": f"{waiting} more refusals, {tally.counted.total()} counted so far; the last: {tally.last}",
                "run": None,
            }
        )
        tally.written += waiting

    def flush(self, *, everything: bool = True) -> None:
        """Write what is counted of windows that are over, or of all; raises AuditUnavailable."""
        now = self._clock()
        for key, tally in list(self._tallies.items()):
            if everything or now - tally.begun >= WINDOW_S:
                self._close(key, tally)

    async def attend(self) -> None:
        """Write counts as their windows end, for ever; without an audit they wait for one."""
        while True:
            await asyncio.sleep(LOOK_S if self._tallies else WINDOW_S / 4)
            try:
                self.flush(everything=False)
            except AuditUnavailable as error:
                say(f"counted refusals wait for the audit: {error}")
                await asyncio.sleep(WINDOW_S / 4)


def _kind(record: Mapping[str, Any]) -> str:
    """Return what kind of step was refused, one of a bounded vocabulary."""
    step = record.get("step")
    return str(step.get("type"))[:40] if isinstance(step, Mapping) else "request"
