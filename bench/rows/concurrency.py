"""Two hundred steps at once against an sshd as it comes (MaxSessions 10)."""

from __future__ import annotations

from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job
from bench.verdict import Claim, Row

NAME = "200-at-once"
TITLE = "200 concurrent steps against a default sshd (MaxSessions 10)"
IDEAL = "semaphore of 10"


def run(rig: Rig) -> Row:
    """Seconds and errors; the ideal is asyncssh behind a semaphore, asking again when it is refused."""
    row = Row(NAME, TITLE)
    count = rig.size(200, 60)
    with rig.host(max_startups=None) as server:
        job = {
            "work": "steps",
            "hosts": [as_job(server.endpoint())],
            "count": count,
            "argv": ["/bin/sleep", "0.05"],
            "warm": True,
        }
        field = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", {**job, "in_flight": count}, python="ours"),
                Entrant(IDEAL, "with_asyncssh.py", {**job, "in_flight": 10, "retry": True}),
                Entrant("asyncssh, no limit", "with_asyncssh.py", {**job, "in_flight": count}),
            ]
        )
    row.take(field, "steps_s", "s")
    row.take(field, "errors", "errors")
    row.claims += [
        Claim("errors", field.median(OURS, "errors"), None, 0, absolute=True),
        Claim(f"vs {IDEAL}", field.median(OURS, "steps_s"), field.median(IDEAL, "steps_s"), 1.2, "s"),
    ]
    return row
