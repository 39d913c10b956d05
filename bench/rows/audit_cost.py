"""What capability check and audit cost of the 100-step run."""

from __future__ import annotations

from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job
from bench.verdict import Claim, Row

NAME = "audit"
TITLE = "capability check and audit, as part of the 100-step run"


def run(rig: Rig) -> Row:
    """Seconds of blocks of 100 steps with both on and with both off, in turns over one connection."""
    row = Row(NAME, TITLE)
    with rig.host() as server:
        job = {
            "work": "guard_cost",
            "hosts": [as_job(server.endpoint())],
            "argv": ["/bin/true"],
            "count": rig.size(100, 20),
            "blocks": rig.size(9, 3),
        }
        field = rig.race([Entrant(OURS, "with_opsexec.py", job, python="ours")])
    row.take(field, "guarded_s", "on s")
    row.take(field, "bare_s", "off s")
    row.claims.append(Claim("on vs off", field.median(OURS, "guarded_s"), field.median(OURS, "bare_s"), 1.05, "s"))
    row.notes.append("fsync policy: group (each line written at once, on disk within 100 ms)")
    return row
