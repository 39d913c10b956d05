"""Local commands with their output captured: one after the other, 32 in flight, and from a large parent."""

from __future__ import annotations

from bench.measure import Entrant
from bench.rig import OURS, Rig
from bench.verdict import Claim, Row

NAME = "local"
TITLE = "LocalExec, output captured: sequential / 32 in flight / from a parent holding 2 GB"
PEER = "asyncio"
FLOOR = "posix_spawn"
LIMITS = {"sequential": 0.75, "32 in flight": 0.8}
OVER_FLOOR = 1.2
"""What the check, the audit and the bounds of a step may add to a bare start (docs/decisions/0018)."""
BALLAST_MB = 2048


def run(rig: Rig) -> Row:
    """Milliseconds a command."""
    row = Row(NAME, TITLE)
    cases = {"sequential": (1, 0), "32 in flight": (32, 0), "2 GB parent": (1, rig.size(BALLAST_MB, 256))}
    ours: dict[str, float | None] = {}
    for case, (in_flight, ballast) in cases.items():
        job = {
            "work": "local",
            "argv": ["/bin/echo", "hello"],
            "count": rig.size(400, 50),
            "in_flight": in_flight,
            "ballast_mb": ballast,
        }
        entrants = [Entrant(OURS, "with_opsexec.py", job, python="ours"), Entrant(PEER, "with_asyncio.py", job)]
        if not ballast:
            entrants.append(Entrant(FLOOR, "with_posix_spawn.py", job))
        field = rig.race(entrants)
        row.take(field, "each_ms", case)
        ours[case] = field.median(OURS, "each_ms")
        if not ballast:
            peer, floor = field.median(PEER, "each_ms"), field.median(FLOOR, "each_ms")
            limit = LIMITS[case]
            if peer and floor and OVER_FLOOR * floor / peer > limit:
                row.notes.append(f"{case}: the floor alone takes {floor / peer:.2f}x {PEER}, so {limit}x can't be had")
                limit = round(OVER_FLOOR * floor / peer, 3)
            row.claims.append(Claim(f"{case} vs {PEER}", ours[case], peer, limit, "ms"))
    row.claims.append(Claim("2 GB parent vs itself small", ours["2 GB parent"], ours["sequential"], 1.2, "ms"))
    return row
