"""How often a manager starts a service again: by the count now, by the journal, or over the time since its last start.

A count that grows in a short look is the surest word. A slower runaway shows in the journal, where the manager tells
of every restart; where that can't be read, the count over the time since the last start has to do.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.services.manager_journal import told

HOUR_S = 3600.0
COUNTER = re.compile(r"Scheduled restart job, restart counter is at ([0-9]{1,9})\.?$")
"""What systemd says of every automatic restart (systemd 240 and later)."""


class Rate(NamedTuple):
    """Restarts an hour, and what they were counted by, as words."""

    per_hour: float
    basis: str


def since_last_start(found: dict[str, str], uptime_s: float) -> float | None:
    """Return the seconds since the unit was last started, by a host's uptime; None when the manager doesn't say.

    systemd counts without the time a host was suspended: after that the answer is too large, never too small.
    """
    starts = [found.get(f"{name}TimestampMonotonic", "") for name in ("ActiveEnter", "InactiveExit")]
    times = [int(each) / 1e6 for each in starts if re.fullmatch(r"[0-9]{1,18}", each) and int(each) > 0]
    return max(0.0, uptime_s - max(times)) if times and uptime_s > 0 else None


def over_last_start(count: int, age_s: float) -> Rate:
    """Return the rate as if all restarts had been in the time since the last start (at least a second)."""
    return Rate(count * HOUR_S / max(age_s, 1.0), f"over the {age_s:.0f} s since its last start")


def by_journal(journal: str, now: float) -> Rate | None:
    """Return the rate of the restarts that `journalctl -o json` tells of, until `now`; None with fewer than two."""
    counts: list[tuple[float, int]] = []
    for entry in told(journal):
        match, when = COUNTER.search(entry["MESSAGE"]), entry.get("__REALTIME_TIMESTAMP")
        if match and isinstance(when, str) and re.fullmatch(r"[0-9]{1,18}", when):
            counts.append((int(when) / 1e6, int(match[1])))
    if len(counts) < 2:
        return None
    first, last = counts[0], counts[-1]
    span = now - first[0]
    if span <= 0 or last[1] <= first[1]:
        return None
    return Rate((last[1] - first[1]) * HOUR_S / span, f"by the journal of {span:.0f} s")
