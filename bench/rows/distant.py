"""Steps at 20 ms round trip, through a delay proxy: how many round trips each one costs."""

from __future__ import annotations

from typing import Any

from bench.measure import Entrant
from bench.rig import OURS, Rig
from bench.round_trip import round_trip_ms
from bench.verdict import Claim, Row

NAME = "rtt-20ms"
TITLE = "sequential steps / 20 independent steps at 20 ms round trip, in round trips"
RTT_MS = 20.0
INDEPENDENT = 20


def run(rig: Rig) -> Row:
    """Round trips a step, and round trips for 20 independent steps."""
    row = Row(NAME, TITLE)
    before_ms = round_trip_ms(RTT_MS)
    with rig.distant_host(RTT_MS) as host:
        job: dict[str, Any] = {"work": "steps", "hosts": [host], "argv": ["/bin/true"], "warm": True}
        one = {**job, "count": rig.size(100, 20), "in_flight": 1}
        field = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", one, python="ours"),
                Entrant("asyncssh", "with_asyncssh.py", one),
                Entrant("ControlMaster", "with_openssh.py", one),
            ]
        )
        # Ten at once is what a default sshd lets a connection have.
        many = {**job, "count": INDEPENDENT, "in_flight": 10}
        together = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", many, python="ours"),
                Entrant("asyncssh", "with_asyncssh.py", many),
            ]
        )
    trip_ms = (before_ms + round_trip_ms(RTT_MS)) / 2
    row.take(field, "steps_s", "RTT a step", scale=1000 / trip_ms / one["count"])
    row.take(together, "steps_s", "RTT for 20", scale=1000 / trip_ms)
    step = row.numbers.get(OURS, {}).get("RTT a step")
    twenty = row.numbers.get(OURS, {}).get("RTT for 20")
    row.claims += [
        Claim("round trips a step", step, None, 1.2, "RTT", absolute=True),
        Claim("round trips for 20 independent steps", twenty, None, 4.0, "RTT", absolute=True),
    ]
    row.notes.append(
        f"one round trip through the proxy: {trip_ms:.2f} ms, as an echo of 200 bytes takes before and after"
    )
    return row
