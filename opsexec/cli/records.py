"""Records of an audit, and runs on hosts, in words: one a line, or all there is of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opsexec.cli.ending import printable
from opsexec.cli.table import flat


def in_words(record: dict[str, Any]) -> str:
    """Return one record on one line: when, what was decided or how it ended, where, who, what."""
    when, host, run = str(record.get("ts"))[:19].replace("T", " "), record.get("host") or "-", record.get("run")
    step, outcome = record.get("step"), record.get("outcome")
    parts = [when, str(record.get("decision") or ("done" if outcome is not None else "note")), str(host)]
    if isinstance(step, dict):
        parts += [str(record.get("principal") or ""), str(step.get("type")), about(step, record)]
    if record.get("decision") != "allow" and record.get("reason"):
        parts.append(str(record.get("reason") or ""))
    if isinstance(outcome, dict):
        parts.append(_ended(outcome))
    if run:
        parts.append(f"run {run}")
    return "  ".join(printable(part) for part in parts if part)


def about(step: dict[str, Any], record: dict[str, Any]) -> str:
    """Return what a redacted step is about, in few words."""
    if isinstance(step.get("argv"), list):
        import shlex

        return shlex.join(map(str, step["argv"]))
    for name in ("action", "path", "dest", "name"):
        if step.get(name):
            return str(step[name])
    requires = record.get("requires")
    return " ".join(map(str, requires)) if isinstance(requires, list) else ""


def _ended(outcome: dict[str, Any]) -> str:
    how = outcome.get("error") or outcome.get("signal") or f"exit {outcome.get('exit_code')}"
    sizes = _number(outcome.get("stdout_bytes")) + _number(outcome.get("stderr_bytes"))
    return f"{how}, {_number(outcome.get('duration_s')):.3f} s, {sizes} B"


def _number(value: object) -> int | float:
    """Return what stands where a number should; 0 for what is none."""
    return value if isinstance(value, int | float) and abs(value) < 1 << 63 else 0


def print_details(records: Sequence[dict[str, Any]]) -> None:
    """Print every member of each, one a line; an empty line between two."""
    for at, record in enumerate(records):
        print("" if at == 0 else "\n", end="")
        for name, text in flat({name: value for name, value in record.items() if value is not None}):
            print(f"{name:<22}  {text}")
