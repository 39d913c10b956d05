"""Ten steps on each of fifty hosts, connections included; what the controller pays for it."""

from __future__ import annotations

from bench.rig import OURS, Rig
from bench.rows.sequential import everyone
from bench.verdict import Claim, Row

NAME = "50x10"
TITLE = "50 hosts x 10 steps, connecting included; controller CPU and memory"
LIMITS = {"asyncssh": 0.8, "pyinfra": 0.5, "ansible": 1 / 60}


def run(rig: Rig) -> Row:
    """Seconds from the first connection to the last result; CPU and PSS of the whole process tree."""
    row = Row(NAME, TITLE)
    with rig.hosts(rig.size(50, 8)) as hosts:
        job = {"work": "steps", "hosts": hosts, "count": 10, "in_flight": 1, "argv": ["/bin/true"]}
        field = rig.race(everyone(job, memory=True))
    row.take(field, "total_s", "s")
    row.take(field, "cpu_s", "CPU s")
    row.take(field, "peak_pss_mb", "PSS MB")
    row.take(field, "peak_rss_mb", "RSS MB")
    mine = field.median(OURS, "total_s")
    row.claims += [
        Claim(f"vs {peer}", mine, field.median(peer, "total_s"), limit, "s") for peer, limit in LIMITS.items()
    ]
    for what, metric, limit in (("CPU", "cpu_s", 1 / 25), ("memory", "peak_pss_mb", 1 / 12)):
        row.claims.append(
            Claim(f"{what} vs ansible", field.median(OURS, metric), field.median("ansible", metric), limit)
        )
    row.notes.append("memory is the peak PSS of the process tree: shared pages count once, which favours forks")
    return row
