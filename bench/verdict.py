"""What a row claims and what was found: plain data, no measuring."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bench.measure import Field

Verdict = Literal["ok", "MISS", "not run"]


@dataclass(frozen=True)
class Claim:
    """One limit. `theirs=None`: `ours` is held against the limit itself, else `ours / theirs` is.

    `at_least`: the limit is a floor (throughputs), else a ceiling.
    """

    what: str
    ours: float | None
    theirs: float | None
    limit: float
    unit: str = ""
    at_least: bool = False
    absolute: bool = False

    @property
    def value(self) -> float | None:
        """What is held against the limit; None when one side has not run."""
        if self.ours is None:
            return None
        if self.absolute:
            return self.ours
        return self.ours / self.theirs if self.theirs else None

    @property
    def verdict(self) -> Verdict:
        """Whether the limit is kept."""
        if self.value is None:
            return "not run"
        kept = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "ok" if kept else "MISS"


@dataclass
class Row:
    """One row of the table: its claims, the contestants' numbers, notes for the reader, plots as SVG by name."""

    name: str
    title: str
    claims: list[Claim] = field(default_factory=list)
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)

    def take(self, field: Field, metric: str, column: str, *, scale: float = 1.0) -> None:
        """Put the medians of one metric into a column; who failed gets a note."""
        for name in field.runs:
            value = field.median(name, metric)
            if value is not None:
                self.numbers.setdefault(name, {})[column] = value * scale
                self.counts[name] = min(self.counts.get(name, field.count(name)), field.count(name))
        self.fail(field)

    def fail(self, field: Field) -> None:
        """Note who could not run, and why."""
        for name, why in field.failed.items():
            note = f"{name} did not run: {why}"
            if note not in self.notes:
                self.notes.append(note)

    def as_json(self) -> dict[str, Any]:
        """Plain data for the results file."""
        claims = [{**asdict(claim), "value": claim.value, "verdict": claim.verdict} for claim in self.claims]
        return {**asdict(self), "claims": claims}
