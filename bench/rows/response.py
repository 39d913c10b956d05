"""The first line of a command that goes on running, over a warm connection."""

from __future__ import annotations

from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job
from bench.verdict import Claim, Row

NAME = "first-line"
TITLE = "first line of a running command"


def run(rig: Rig) -> Row:
    """Milliseconds from asking until the line is here."""
    row = Row(NAME, TITLE)
    with rig.host() as server:
        job = {
            "work": "first_line",
            "hosts": [as_job(server.endpoint())],
            "count": rig.size(40, 5),
            "script": "echo ready; exec sleep 0.03",
        }
        field = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", job, python="ours"),
                Entrant("asyncssh", "with_asyncssh.py", job),
            ]
        )
    row.take(field, "first_ms", "ms")
    row.claims.append(
        Claim("vs asyncssh", field.median(OURS, "first_ms"), field.median("asyncssh", "first_ms"), 1.1, "ms")
    )
    return row
