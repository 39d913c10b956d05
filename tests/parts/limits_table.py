"""The table of docs/agent-limits.md: each row is what one abuse test saw in its run.

`python -m tests.parts.limits_table` writes the document from the rows of the last runs, kept in build/.
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ROWS = REPOSITORY / "build" / "agent-limits.json"
DOCUMENT = REPOSITORY / "docs" / "agent-limits.md"
BEGIN, END = "<!-- rows:begin -->", "<!-- rows:end -->"

TITLES = {
    "frames-decoder": "Malformed requests, decoders alone",
    "frames-socket": "Malformed requests, a real agent",
    "slowloris": "Slowloris: heads and bodies that drip in",
    "idle-connections": "1,000 idle connections",
    "over-the-bound": "Connections over the bound",
    "strangers": "Users without a grant take every connection",
    "bottle-audit": "A bottle asks without end",
    "body-over-limit": "A body over the limit",
    "unread": "Answers that nobody reads",
    "concurrent-runs": "200 runs at once",
    "no-descriptors": "More connections than file descriptors",
    "flood": "A user without a grant asks without end",
    "stages-attended": "Agent killed -9 at each stage of a run, caller waiting",
    "stages-detached": "Agent killed -9 at each stage of a detached run",
    "killed-attended": "The same at random, caller waiting",
    "disk-full": "No room in state_dir",
    "clock": "The clock jumps a year ahead and back",
    "rotation": "The audit rotates under load",
    "logrotate": "logrotate moves the audit away",
}


def record(row: str, did: str, saw: str) -> None:
    """Keep a row: what was done, and what was seen. Tests of other files may do so at the same time."""
    assert row in TITLES, row
    ROWS.parent.mkdir(exist_ok=True)
    with ROWS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = json.loads(ROWS.read_text()) if ROWS.exists() else {}
        rows[row] = [did, saw]
        whole = ROWS.with_suffix(".new")
        whole.write_text(json.dumps(rows, indent=1) + "\n")
        whole.replace(ROWS)


def table(rows: dict[str, list[str]]) -> str:
    """Return the rows as the document has them."""
    lines = ["| what | done | seen |", "|---|---|---|"]
    lines += [f"| {title} | {rows[row][0]} | {rows[row][1]} |" for row, title in TITLES.items()]
    return "\n".join(lines)


def main() -> int:
    """Write the document; says which rows no run has seen yet."""
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    absent = [row for row in TITLES if row not in rows]
    if absent:
        print(f"no run has seen: {', '.join(absent)}; run tests/adversarial/test_agent_abuse*.py", file=sys.stderr)
        return 1
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
