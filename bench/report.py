"""Results as a table for people, as JSON for programs, and as the README's section."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import peers
from bench.verdict import Row

RESULTS = Path(__file__).with_name("results")
PLOTS = Path(__file__).with_name("plots")
README = peers.ROOT / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HEAD = ["work", "claim", "opsexec", "peer", "found", "limit", "n", ""]


def write_json(rows: Sequence[Row], *, full: bool) -> Path:
    """Write one results file, named by its time; returns its path. Only full ones reach the README."""
    now = datetime.datetime.now(datetime.UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%dT%H%M%S}{'' if full else '-quick'}.json"
    result = {
        "when": now.isoformat(timespec="seconds"),
        "full": full,
        "machine": machine(),
        "peers": peers.versions(),
        "rows": [row.as_json() for row in rows],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def machine() -> str:
    """One line about where it ran."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {version}"


def claim_cells(row: dict[str, Any], claim: dict[str, Any]) -> list[str]:
    """One claim as cells under HEAD."""
    relation = "≥" if claim["at_least"] else "≤"
    suffix = "" if claim["absolute"] else "x"
    count = str(row["counts"].get("opsexec", "")) if row["counts"] else ""
    slowest = min(row["counts"].values(), default=0)
    if count and slowest < int(count):
        count = f"{count} ({slowest})"
    return [
        row["title"], claim["what"],
        number(claim["ours"], claim["unit"]), number(claim["theirs"], claim["unit"]),
        number(claim["value"], "") + (suffix if claim["value"] is not None else ""),
        f"{relation} {number(claim['limit'], '')}{suffix}", count, claim["verdict"],
    ]  # fmt: skip


def number(value: float | None, unit: str) -> str:
    """Three significant digits."""
    if value is None:
        return "-"
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{text} {unit}".strip()


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """All claims in one table, then notes, plots and the tables that rows have of their own."""
    rows = list(rows)
    table, extra = [HEAD], []
    notes = [note for row in rows for note in row["notes"] if "\n" not in note]
    if notes:
        extra += ["", *(f"- {note}" for note in notes)]
    for row in rows:
        for name in row.get("plots", {}):
            extra += ["", f"![{row['title']}](bench/plots/{name}.svg)"]
        shown = ""
        for claim in row["claims"]:
            cells = claim_cells(row, claim)
            cells[0], shown = ("" if cells[0] == shown else cells[0]), cells[0] or shown
            table.append(cells)
        for own in row["tables"]:
            extra += ["", f"{row['title'][0].upper()}{row['title'][1:]}:", "", lines_of(own)]
    return "\n".join([lines_of(table), *extra])


def lines_of(table: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    head, *body = table
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def plain(row: Row) -> str:
    """A row for the terminal: every contestant's numbers, then the claims."""
    data = row.as_json()
    text = [f"\n{row.title}"]
    columns = list(dict.fromkeys(column for values in row.numbers.values() for column in values))
    if columns:
        head = ["", *columns, "n"]
        body = [
            [name, *(number(values.get(column), "") for column in columns), str(row.counts.get(name, ""))]
            for name, values in row.numbers.items()
        ]
        text.append(aligned([head, *body]))
    text += [aligned(table) for table in row.tables]
    text.append(aligned([[*claim_cells(data, claim)[1:6], claim["verdict"]] for claim in data["claims"]]))
    text += [f"  note: {note}" for note in row.notes]
    return "\n".join(text)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, indented."""
    if not table:
        return ""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def newest_rows(names: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """The newest full result of each row, in order, and one line about where and when each was measured."""
    found: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    pins = ""
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        if not result["full"]:
            continue
        for row in result["rows"]:
            found[row["name"]] = row
            places[row["name"]] = f"{result['when'][:10]} on {result['machine']}"
        pins = ", ".join(f"{name} {version}" for name, version in result["peers"].items())
    chosen = [name for name in names if name in found]
    return [found[name] for name in chosen], f"Measured {_told({name: places[name] for name in chosen})}; {pins}."


def _told(places: Mapping[str, str]) -> str:
    """Say when and where rows were measured: each place with its rows, where they are of several."""
    rows: dict[str, list[str]] = {}
    for name, place in places.items():
        rows.setdefault(place, []).append(name)
    if len(rows) == 1:
        return next(iter(rows))
    return "; ".join(f"{place}: {', '.join(names)}" for place, names in sorted(rows.items(), reverse=True))


def write_readme(names: Sequence[str]) -> bool:
    """Put the newest results between the README's markers; False when it has none or nothing was measured."""
    rows, about = newest_rows(names)
    if not rows or not README.exists():
        return False
    text = README.read_text()
    if BEGIN not in text or END not in text:
        return False
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    legend = (
        "`found` is opsexec / peer, or the number itself; "
        "`n` is how many runs a median stands on (the slowest peer's in parentheses)."
    )
    PLOTS.mkdir(exist_ok=True)
    for row in rows:
        for name, drawing in row.get("plots", {}).items():
            PLOTS.joinpath(f"{name}.svg").write_text(drawing)
    README.write_text(f"{before}{BEGIN}\n{about} {legend}\n\n{markdown(rows)}\n{END}{after}")
    return True
