"""One contestant, one run, one measurement; and rounds in which contestants take turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.peers import CONTESTANTS, ROOT, venv_path

#: A contestant that takes longer than this has hung.
RUN_DEADLINE_S = 900.0
SLOW_ROUNDS = 3


class ContestantFailed(RuntimeError):
    """A contestant ended badly; the message carries the end of what it printed."""


@dataclass(frozen=True)
class Entrant:
    """One contestant with its job.

    `script`: a file in bench/contestants, or an argv of its own when a sequence. `slow`: gets fewer rounds.
    `before`: called before each run, untimed. `memory`: sample the whole tree's memory (costs some CPU).
    """

    name: str
    script: str | Sequence[str]
    job: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False
    python: Literal["ours", "peers"] = "peers"
    memory: bool = False
    before: Callable[[], None] | None = None

    def argv(self, home: Path) -> list[str]:
        """What is executed; the job stands in a file in `home`, because a thousand hosts are too long an argument."""
        if not isinstance(self.script, str):
            return list(self.script)
        python = sys.executable if self.python == "ours" else str(venv_path() / "bin/python")
        job = home / "job.json"
        job.write_text(json.dumps(dict(self.job)))
        return [python, str(CONTESTANTS / self.script), str(job)]


@dataclass(frozen=True)
class Measured:
    """Seconds and MiB of one run: from outside, and what the contestant said of itself (`inside`)."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    peak_pss_mb: float
    inside: dict[str, Any]

    def get(self, metric: str) -> float:
        """A metric by name; the contestant's own come first."""
        return float(self.inside[metric] if metric in self.inside else getattr(self, metric))


def environment(home: Path) -> dict[str, str]:
    """The contestants' environment: a home of their own, so that no user configuration is read."""
    return {
        "PATH": f"{venv_path() / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "",
        "OPSEXEC_AUDIT": str(home / "audit.jsonl"),
    }


def run_once(entrant: Entrant) -> Measured:
    """Run one contestant once; raises ContestantFailed."""
    if entrant.before is not None:
        entrant.before()
    with tempfile.TemporaryDirectory(prefix="bench-home-") as home:
        argv = [sys.executable, "-I", str(Path(__file__).with_name("supervisor.py"))]
        done = subprocess.run(
            [*argv, "1" if entrant.memory else "0", *entrant.argv(Path(home))],
            env=environment(Path(home)), cwd=home, capture_output=True, text=True, timeout=RUN_DEADLINE_S,
        )  # fmt: skip
    if done.returncode != 0:
        raise ContestantFailed(f"{entrant.name}: the supervisor failed: {done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if result["exit_code"] != 0:
        raise ContestantFailed(
            f"{entrant.name}: exit status {result['exit_code']}: {result['stdout'][-1500:]}{done.stderr[-1500:]}"
        )
    inside: dict[str, Any] = {}
    last = (result["stdout"].strip().splitlines() or [""])[-1]
    if last.startswith("{"):
        inside = json.loads(last)
    return Measured(result["wall_s"], result["cpu_s"], result["peak_rss_mb"], result["peak_pss_mb"], inside)


def median(runs: Sequence[Measured], metric: str) -> float:
    """Median of one metric over runs."""
    return statistics.median(run.get(metric) for run in runs)


@dataclass
class Field:
    """All runs of all entrants of a row, and who could not run and why."""

    runs: dict[str, list[Measured]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, name: str, metric: str) -> float | None:
        """Median of a metric of one entrant; None when it has not run."""
        runs = self.runs.get(name)
        return median(runs, metric) if runs else None

    def count(self, name: str) -> int:
        """How many runs the entrant's medians stand on."""
        return len(self.runs.get(name, ()))


def round_robin(entrants: Sequence[Entrant], rounds: int, *, say: Callable[[str], None]) -> Field:
    """Let the entrants take turns, each round led by another one; slow ones sit out the last rounds."""
    field_ = Field()
    for number in range(rounds if entrants else 0):
        turn = number % len(entrants)
        for entrant in [*entrants[turn:], *entrants[:turn]]:
            if entrant.name in field_.failed or (entrant.slow and number >= min(SLOW_ROUNDS, rounds)):
                continue
            say(f"round {number + 1}/{rounds}: {entrant.name}")
            try:
                measured = run_once(entrant)
            except (ContestantFailed, subprocess.TimeoutExpired) as error:
                field_.failed[entrant.name] = str(error)
                field_.runs.pop(entrant.name, None)
                continue
            field_.runs.setdefault(entrant.name, []).append(measured)
    return field_
