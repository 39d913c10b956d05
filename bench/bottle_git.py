"""`python -m bench.bottle_git`: a push of one commit through the git gate, beside the bare start of gitleaks.

They take turns, round by round, in one run; a number is the median of all rounds after one that warms up. `fresh`: the
mirror was refreshed within the last 30 s, as after a clone or fetch; `stale`: the gate asks the upstream again first.
`git://`: the second door, which bottles on Docker use.
The upstream is an sshd on loopback whose shell reads no profile. The floor is the same push without any gate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.parts.git_gate import GitGate, Work, find_gitleaks, gate
from tests.parts.sshd import Sshd

ROOT = Path(__file__).parents[1]
LIMIT_MS = 250
FRESH_S = 2.0
"""What counts as fresh in the gate that is pushed to stale; a push that takes longer would refresh twice."""

START, DIRECT, FRESH, STALE = "gitleaks start", "push, no gate", "push, fresh", "push, stale"
NATIVE = "push by git://, stale"


def bare_start() -> float:
    """Seconds of gitleaks over one line, with its own configuration; no report, whose file it would remove first."""
    began = time.perf_counter()
    done = subprocess.run(
        [str(find_gitleaks()), "stdin", "--no-banner"], input=b"hello\n", capture_output=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"gitleaks ended with {done.returncode}")
    return took


def pushing(work: Work, remote: str, name: str) -> Callable[[], float]:
    """A push of one new commit, each to a branch of its own."""
    count = 0

    def push() -> float:
        nonlocal count
        count += 1
        work.write("notes.txt", f"line {count}\n")
        work.commit(f"change {count}")
        began = time.perf_counter()
        done = work.run("push", "-q", remote, f"HEAD:refs/heads/{name}-{count}")
        took = time.perf_counter() - began
        if done.returncode != 0:
            raise RuntimeError(f"a push failed: {done.stderr!r}")
        return took

    return push


def measure(rounds: int) -> dict[str, Any]:
    """Run the contest; milliseconds by contestant, and what a push takes beyond the scanner's own start."""
    with ExitStack() as stack:
        sshd = stack.enter_context(Sshd(max_startups=None, extra=("SetEnv HOME=/nonexistent",)))
        fresh = stack.enter_context(gate(sshd, "site"))
        stale = stack.enter_context(gate(sshd, "site", limits={"fresh_s": FRESH_S}))
        direct = fresh.clone("site")
        direct.env["GIT_SSH_COMMAND"] = " ".join(["ssh", *sshd.endpoint().client_options()])
        contestants: dict[str, Callable[[], float]] = {
            START: bare_start,
            DIRECT: pushing(direct, f"{sshd.url()}{stale.upstream('site')}", "direct"),
            FRESH: refreshed(fresh, pushing(fresh.clone("site"), "origin", "fresh")),
            STALE: grown_old(pushing(stale.clone("site"), "origin", "stale")),
            NATIVE: grown_old(pushing(stale.clone("site", native=True), "origin", "native")),
        }
        took: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(rounds + 1):
            names = list(contestants)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                seconds = contestants[name]()
                if turn:
                    took[name].append(seconds)
        medians = {name: round(statistics.median(each) * 1e3) for name, each in took.items()}
        beyond = {name: medians[name] - medians[START] for name in (FRESH, STALE, NATIVE)}
        return {
            "what": "a push of one commit, median milliseconds",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": round(os.getloadavg()[0], 2)},
            "rounds": rounds,
            "ms": medians,
            "spread_ms": {name: [round(min(each) * 1e3), round(max(each) * 1e3)] for name, each in took.items()},
            "beyond_gitleaks_start_ms": beyond,
            "limit_ms": LIMIT_MS,
            "verdict": {name: "ok" if ms <= LIMIT_MS else "MISS" for name, ms in beyond.items()},
        }


def refreshed(running: GitGate, push: Callable[[], float]) -> Callable[[], float]:
    """The push right after the mirror was refreshed, outside the time that counts."""
    reader = running.clone("site")

    def turn() -> float:
        reader.git("fetch", "-q", "origin")
        return push()

    return turn


def grown_old(push: Callable[[], float]) -> Callable[[], float]:
    """The push once no refresh is fresh any more."""

    def turn() -> float:
        time.sleep(FRESH_S)
        return push()

    return turn


def main() -> int:
    """Measure, print, and write bench/results/bottle/git.json."""
    made = argparse.ArgumentParser(prog="python -m bench.bottle_git", description=__doc__)
    made.add_argument("--rounds", type=int, default=21, help="pushes of each kind that count")
    made.add_argument("--no-write", action="store_true", help="only print")
    options = made.parse_args()
    found = measure(options.rounds)
    print(json.dumps(found, indent=1))
    if not options.no_write:
        target = ROOT / "bench" / "results" / "bottle" / "git.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
