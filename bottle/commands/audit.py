"""`bottle audit`: a bottle's own chain, verified and shown: each step of its launch, each decision of a gate."""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bottle.manifest.store import home_root
from bottle.preflight import shown
from bottle.state import State


def audit(arguments: argparse.Namespace) -> int:
    """Show it; returns 1 when the chain isn't whole. What stands before the damage is shown all the same."""
    from opsexec.audit import verify

    state = State(home_root().resolve())
    state.read(arguments.identity)
    path = state.directory(arguments.identity) / "audit.jsonl"
    report = verify(path)
    # One by one: an agent can have a gigabyte of decisions written.
    records: Iterable[dict[str, Any]] = (
        each for each in _records(path) if not arguments.refused or each.get("decision") == "deny"
    )
    if arguments.last is not None:
        records = deque(records, maxlen=arguments.last)
    whole = report.problem is None
    if arguments.json:
        _print_json(whole, None if whole else str(report.problem), records)
        return 0 if whole else 1
    for record in records:
        print(shown(line(record)))
    print(shown(str(report.problem or report)))
    return 0 if whole else 1


def _print_json(whole: bool, problem: str | None, records: Iterable[dict[str, Any]]) -> None:
    """Print one object, a record at a time."""
    print(f'{{"whole": {json.dumps(whole)}, "problem": {json.dumps(problem)}, "records": [', end="")
    comma = ""
    for record in records:
        print(comma + json.dumps(record), end="")
        comma = ", "
    print("]}")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of every file of the log, the oldest first; a line that is none is left to `verify`."""
    from opsexec.audit.segment import closed_segments

    for file in [*(each for _, each in closed_segments(path)), path]:
        if not file.is_file():
            continue
        with open(file, "rb") as stream:
            for each in stream:
                try:
                    found = json.loads(each)
                except ValueError:
                    continue
                if isinstance(found, dict):
                    yield found


def line(record: dict[str, Any]) -> str:
    """Return one record as a person reads it."""
    when = record.get("ts")
    clock = time.strftime("%H:%M:%S", time.localtime(when)) if isinstance(when, (int, float)) else str(when)[11:19]
    outcome, listener = record.get("outcome"), record.get("listener") or "-"
    if isinstance(outcome, dict):
        how = outcome.get("error") or outcome.get("signal") or f"exit {outcome.get('exit_code')}"
        return f"{clock} {'ended':<6} {listener:<9} run {record.get('run') or '-'}: {how}"
    step = record.get("step")
    about = dict(step) if isinstance(step, dict) else {}
    kind = about.pop("type", "")
    words = " ".join(f"{key}={_brief(value)}" for key, value in about.items() if value not in (None, {}, []))
    reason = f": {record['reason']}" if record.get("reason") else ""
    # What decides nothing, like a proposal that waits, has no decision.
    return f"{clock} {record.get('decision') or 'note':<6} {listener:<9} {kind} {words[:200]}{reason}"


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
