"""What the dashboard shows, read at once: bottles, proposals, refusals, and what couldn't be read. No screen in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottle.errors import BadManifest, NoSuchBottle
from bottle.manifest.store import load_directories
from bottle.operator.shown import Shown, waiting
from bottle.preflight import shown as plain
from bottle.state import State
from opsexec.errors import AuditUnavailable

LINES = 400
"""Of each bottle's audit that are looked through for refusals."""

MAX_REFUSALS = 100


@dataclass(frozen=True)
class BottleRow:
    """One bottle. `how`: running, stopped, left behind, unreadable."""

    identity: str
    how: str
    agent: str
    started: str


@dataclass(frozen=True)
class RefusalRow:
    """One refusal: when, by whom, what, why."""

    ts: str
    bottle: str
    by: str
    what: str
    why: str


@dataclass
class Board:
    """Everything at one moment. `status`: a line for each thing that can't be read."""

    bottles: list[BottleRow] = field(default_factory=list)
    waiting: list[Shown] = field(default_factory=list)
    refusals: list[RefusalRow] = field(default_factory=list)
    status: list[str] = field(default_factory=list)


def read_board(state: State, root: Path) -> Board:
    """Read it all. What is unreadable becomes a status line, never an error."""
    board = Board()
    running = {each.identity for each in state.running()}
    for identity in state.identities():
        board.bottles.append(_bottle(state, identity, identity in running))
        if identity in running:
            try:
                board.refusals += _refusals(state.directory(identity) / "audit.jsonl", identity)
            except AuditUnavailable as error:
                board.status.append(plain(f"{identity}: {error.message}"))
    board.bottles.sort(key=lambda row: (row.how != "running", row.started, row.identity))
    board.refusals = sorted(board.refusals, key=lambda row: row.ts, reverse=True)[:MAX_REFUSALS]
    seen = waiting(state)
    board.waiting = seen.waiting
    board.status += [plain(each) for each in seen.unreadable]
    board.status += [plain(each) for each in _manifests(root)]
    return board


def _bottle(state: State, identity: str, running: bool) -> BottleRow:
    try:
        found = state.read(identity)
    except NoSuchBottle:
        return BottleRow(identity, "unreadable", "", "")
    how = "running" if running else "left behind" if found.phase == "launching" else "stopped"
    return BottleRow(identity, how, plain(found.agent), time.strftime("%m-%d %H:%M", time.localtime(found.started_at)))


def _refusals(log: Path, identity: str) -> Iterator[RefusalRow]:
    from opsexec.audit import tail

    if not log.exists():
        return
    for record in tail(log, LINES):
        if record.get("decision") == "deny":
            step = record.get("step") or {}
            what = _what(step)
            by = str(record.get("listener") or record.get("layer") or "")
            ts = str(record.get("ts", ""))[11:19]
            yield RefusalRow(ts, identity, plain(by), plain(what), plain(str(record.get("reason", ""))))


def _what(step: dict[str, Any]) -> str:
    if step.get("type") == "egress":
        return f"{step.get('method', '')} {step.get('host', '')}{step.get('path', '')}".strip()
    words = [step.get("action"), step.get("repository"), step.get("kind"), (step.get("change") or {}).get("host")]
    return " ".join(str(each) for each in words if each) or str(step.get("type", ""))


def _manifests(root: Path) -> list[str]:
    """Return why each manifest that can't be read can't, and which files are none."""
    try:
        return load_directories(root, None).problems()
    except BadManifest as error:
        return [error.message]
