"""What a bundle says: lines of its daemons, taken apart. Decisions go to the bottle's audit, the rest to its log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from bottle.preflight import shown
from opsexec.errors import AuditUnavailable
from opsexec.executor import AuditSink, Stream

SPEAKING = frozenset({"egress", "git-gate", "dns", "doors", "supervise", "pipelock"})
"""Daemons whose lines may be events; of pipelock, whose log holds what others chose, none is taken but `ready`."""

MAX_LINE = 1 << 20
MAX_LOG = 16 << 20
"""Characters that one launch may add to a bottle's log."""


MAX_AUDIT = 1 << 30
"""Bytes of decisions that one launch may add to a bottle's audit: what an agent can have written has a bound, too.

The log keeps twice that: no agent can push out how its own bottle was started.
"""
CHAIN = 256
"""Bytes that the log adds to a record: its number, its time, two hashes, and the names of these."""


class BundleOutput:
    """A LogSink for the bundle's run. `ready`: set once every daemon said so, or one `failed` to.

    `listening`: who takes a daemon's events, as they are said: the daemon's word, and nothing more. `init` has,
    once all are ready, what becomes of each.
    """

    def __init__(
        self,
        identity: str,
        daemons: set[str],
        audit: AuditSink,
        log: TextIO,
        seen: Callable[[dict[str, Any]], None],
        listening: Mapping[str, Callable[[dict[str, Any]], None]] | None = None,
    ) -> None:
        self._listening = dict(listening or {})
        self.identity = identity
        self._waiting = set(daemons)
        self._audit = audit
        self._log = log
        self._seen = seen
        self._rest = {"stdout": b"", "stderr": b""}
        self._room = MAX_LOG
        self._audit_room = MAX_AUDIT
        self.ready = asyncio.Event()
        self.failed: str | None = None
        if not self._waiting:
            self.ready.set()

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take a block."""
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        self._rest[stream] = rest[-MAX_LINE:]
        for line in lines:
            self._line(line.decode("utf-8", "replace"))

    def _line(self, line: str) -> None:
        daemon, _, text = line.partition(" | ")
        event = _event(text) if daemon in SPEAKING else None
        kind = event.get("event") if event else None
        record = AUDITED.get((daemon, str(kind)))
        if event is not None and record is not None:
            made = record(self.identity, event)
            self._audit_room -= len(json.dumps(made)) + CHAIN  # several times the line that says it
            if self._audit_room < 0:
                raise AuditUnavailable(
                    f"this bottle's decisions are over {MAX_AUDIT >> 20} MiB", hint=f"bottle resume {self.identity}"
                )
            self._audit.append(made)
            if kind != "step":
                self._seen(event)
            return
        if event is not None and kind != "ready" and daemon in self._listening:
            self._listening[daemon](event)
            if daemon == "supervise":
                return
        if daemon == "init" and " ended unexpectedly " in text:
            if self._waiting:
                self.failed = text.partition(";")[0]
                self.ready.set()
            self._tell("init", {"event": "ended", "daemon": text.partition(" ")[0]})
        if kind == "ready":
            self._tell("init", {"event": "ready", "daemon": daemon})
            self._waiting.discard(daemon)
            if not self._waiting:
                self.ready.set()
        self.note(shown(line) + "\n")

    def _tell(self, who: str, event: dict[str, Any]) -> None:
        if who in self._listening and not self._waiting:
            self._listening[who](event)

    def note(self, line: str) -> None:
        """Write to the log, until it is full: what an agent can make a daemon say has a bound."""
        if self._room <= 0:
            return
        self._room -= len(line)
        self._log.write(line if self._room > 0 else "init | this log is full; the audit goes on\n")
        self._log.flush()


def _event(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def audited(identity: str, event: dict[str, Any]) -> dict[str, Any]:
    """Return an egress decision as an audit record."""
    step: dict[str, Any] = {"type": "egress"}
    for key in ("method", "host", "port", "path", "injected"):
        value = event.get(key)
        if isinstance(value, (str, int)):
            step[key] = shown(value) if isinstance(value, str) else value
    return {
        "host": identity,
        "listener": "egress",
        "principal": f"bottle:{identity}",
        "layer": "bottle",
        "step": step,
        "requires": [f"egress:{shown(str(event.get('host', '')))}"],
        "decision": "allow" if event.get("decision") == "allow" else "deny",
        "reason": shown(str(event.get("reason", ""))),
    }


def audited_git(identity: str, event: dict[str, Any]) -> dict[str, Any]:
    """Return a decision of the git gate as an audit record."""
    step: dict[str, Any] = {"type": "git"}
    for key in ("repository", "action", "refs", "commands", "updates"):
        value = event.get(key)
        if isinstance(value, (str, int, list)):
            step[key] = value
    return {
        "host": identity,
        "listener": "git-gate",
        "principal": f"bottle:{identity}",
        "layer": "bottle",
        "step": step,
        "requires": [f"git:{event.get('repository', '')}"],
        "decision": "allow" if event.get("decision") == "allow" else "deny",
        "reason": str(event.get("reason", "")),
    }


def audited_dns(identity: str, event: dict[str, Any]) -> dict[str, Any]:
    """Return a name that the resolver doesn't know as an audit record."""
    step: dict[str, Any] = {"type": "dns"}
    for key in ("host", "kind", "left_out"):
        value = event.get(key)
        if isinstance(value, (str, int)):
            step[key] = value
    return {
        "host": identity,
        "listener": "dns",
        "principal": f"bottle:{identity}",
        "layer": "bottle",
        "step": step,
        "requires": [f"dns:{event.get('host', '')}"],
        "decision": "deny",
        "reason": str(event.get("reason", "")),
    }


def audited_step(identity: str, event: dict[str, Any]) -> dict[str, Any]:
    """Return what the git gate's own executor recorded of a step, as a record of this bottle's."""
    record = event.get("record")
    found = dict(record) if isinstance(record, dict) else {"reason": "a step without a record"}
    return {**found, "host": identity, "listener": "git-gate", "principal": f"bottle:{identity}", "layer": "bottle"}


AUDITED = {
    ("egress", "egress"): audited,
    ("git-gate", "git"): audited_git,
    ("git-gate", "step"): audited_step,
    ("dns", "dns"): audited_dns,
}
"""(daemon, kind of event) -> the audit record it becomes."""
