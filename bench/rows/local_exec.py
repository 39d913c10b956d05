"""Local commands with their output captured: one after the other, 32 in flight, and from a large parent."""

from __future__ import annotations

from bench.measure import Entrant
from bench.rig import OURS, Rig
from bench.verdict import Claim, Row

NAME = "local"
TITLE = "LocalExec, output captured: sequential / 32 in flight / from a parent holding 2 GB"
PEER = "asyncio"
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
        field = rig.race([Entrant(OURS, "with_opsexec.py", job, python="ours"), Entrant(PEER, "with_asyncio.py", job)])
        row.take(field, "each_ms", case)
        ours[case] = field.median(OURS, "each_ms")
        if case != "2 GB parent":
            limit = 0.75 if case == "sequential" else 0.8
            row.claims.append(Claim(f"{case} vs {PEER}", ours[case], field.median(PEER, "each_ms"), limit, "ms"))
    row.claims.append(Claim("2 GB parent vs itself small", ours["2 GB parent"], ours["sequential"], 1.2, "ms"))
    return row
