"""What a connected, idle SSH host costs, up to a thousand of them; and whether the cost grows evenly."""

from __future__ import annotations

from bench.measure import Entrant
from bench.plot import bars, curves
from bench.rig import OURS, Rig
from bench.verdict import Claim, Row

NAME = "idle-hosts"
TITLE = "memory a host at 1,000 idle SSH hosts; cost over 1, 10, 100, 400 hosts"
LIMIT_MB = 0.4
#: "Linear": a host among 400 may cost this much more CPU than one among 10.
LINEAR_WITHIN = 1.25


def run(rig: Rig) -> Row:
    """MiB of resident memory and milliseconds of CPU a host, beyond the first connection."""
    row = Row(NAME, TITLE)
    sizes = [1, 10, 40] if rig.quick else [1, 10, 100, 400, 1000]
    megabytes: dict[int, float] = {}
    cpu: dict[int, float] = {}
    whole: dict[str, list[tuple[float, float]]] = {}
    for size in sizes:
        with rig.hosts(size) as hosts:
            job = {"work": "idle", "hosts": hosts}
            field = rig.race(
                [
                    Entrant(OURS, "with_opsexec.py", job, python="ours", slow=size > 100),
                    Entrant("asyncssh", "with_asyncssh.py", job, slow=size > 100),
                ]
            )
        row.take(field, "host_mb", f"MB a host of {size}")
        row.take(field, "host_cpu_ms", f"CPU ms a host of {size}")
        for name in field.runs:
            each = field.median(name, "host_cpu_ms")
            if each is not None:
                whole.setdefault(name, []).append((size, each * size / 1000))
        mb, ms = field.median(OURS, "host_mb"), field.median(OURS, "host_cpu_ms")
        if mb is not None and ms is not None:
            megabytes[size], cpu[size] = mb, ms
    largest, few = sizes[-1], 10
    many = 40 if rig.quick else 400
    row.claims += [
        Claim(f"memory a host at {largest}", megabytes.get(largest), None, LIMIT_MB, "MB", absolute=True),
        Claim(f"CPU a host, {many} vs {few} hosts", cpu.get(many), cpu.get(few), LINEAR_WITHIN, "ms"),
    ]
    if megabytes:
        row.notes.append("MB a host:\n" + bars({str(n): v for n, v in megabytes.items()}, "MB"))
        row.notes.append("CPU ms a host:\n" + bars({str(n): v for n, v in cpu.items()}, "ms"))
        row.plots["idle-hosts"] = curves("CPU seconds to connect and hold idle hosts", "hosts", whole)
    return row
