"""Half a gigabyte of output, as blocks and as line events."""

from __future__ import annotations

from typing import Any

from bench.measure import Entrant, Field
from bench.rig import OURS, Rig, as_job
from bench.verdict import Claim, Row

NAME = "output"
TITLE = "500 MB of output, and the same as line events"
LINE = b"2026-01-01T00:00:00Z host app[4711]: a line of a log, as long as such lines commonly are (100 b)\n"
MEMORY_LIMIT_MB = 64.0


def run(rig: Rig) -> Row:
    """Megabytes (10^6 bytes) a second, and the controller's peak memory."""
    row = Row(NAME, TITLE)
    size = rig.size(500, 50) * 1_000_000 // len(LINE) * len(LINE)
    big = rig.scratch / "output.log"
    block = LINE * 10_000
    with big.open("wb") as file:
        for at in range(0, size, len(block)):
            file.write(block[: size - at])
    argv = ["/bin/cat", str(big)]
    with rig.host() as server:
        job: dict[str, Any] = {
            "hosts": [as_job(server.endpoint())],
            "argv": argv,
            "command": " ".join(argv),
            "bytes": size,
        }
        blocks = {**job, "work": "stream"}
        field = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", blocks, python="ours"),
                Entrant("asyncssh", "with_asyncssh.py", blocks),
                Entrant("asyncssh, gcm", "with_asyncssh.py", {**blocks, "gcm": True}),
                Entrant("ssh", "with_openssh.py", blocks),
            ]
        )
        lines = {**job, "work": "lines"}
        by_line = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", lines, python="ours"),
                Entrant("asyncssh", "with_asyncssh.py", lines, slow=True),
            ]
        )
    big.unlink()
    row.take(field, "mb_s", "MB/s")
    row.take(by_line, "mb_s", "lines MB/s")
    own = field.median(OURS, "own_peak_mb")
    if own is not None:
        row.numbers[OURS]["peak MB"] = own
    theirs = field.median("asyncssh", "own_peak_mb")
    if theirs is not None:
        row.numbers["asyncssh"]["peak MB"] = theirs
    row.claims += [
        faster("throughput vs asyncssh (bare, callback session)", field, "asyncssh", 0.9),
        faster("throughput vs ssh -c aes128-gcm", field, "ssh", 0.7),
        Claim("peak memory", own, None, MEMORY_LIMIT_MB, "MB", absolute=True),
        faster("line events vs `async for line`", by_line, "asyncssh", 10.0),
        Claim("bytes lost", field.median(OURS, "lost"), None, 0, "bytes", absolute=True),
    ]
    return row


def faster(what: str, field: Field, peer: str, limit: float) -> Claim:
    """A floor for our throughput, in terms of a peer's."""
    return Claim(what, field.median(OURS, "mb_s"), field.median(peer, "mb_s"), limit, "MB/s", at_least=True)
