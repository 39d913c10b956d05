"""What may never happen, counted: lost bytes, lost exit statuses, bad audit lines, unverified hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job
from bench.verdict import Claim, Row

NAME = "counters"
TITLE = "bytes lost / exit statuses lost / invalid JSON lines / hosts used without host-key verification"
SIZES = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_003, 20_000_001]


def run(rig: Rig) -> Row:
    """Each is held against zero."""
    row = Row(NAME, TITLE)
    log = rig.scratch / "counted-audit.jsonl"
    with rig.host() as known, rig.host() as stranger:
        host = as_job(known.endpoint())
        # The address of one server with the known_hosts of another: nothing there is to be trusted.
        unknown = {**as_job(stranger.endpoint()), "known_hosts": host["known_hosts"]}
        unknown["identity"] = str(stranger.client_key)
        sizes = SIZES[: rig.size(len(SIZES), 6)]
        job: dict[str, Any] = {
            "work": "counters",
            "hosts": [host],
            "sizes": sizes,
            "statuses": rig.size(256, 16),
        }
        field = rig.race([Entrant(OURS, "with_opsexec.py", {**job, "audit_path": str(log)}, python="ours")], rounds=1)
        asked = rig.race(
            [Entrant(OURS, "with_opsexec.py", {"work": "strangers", "hosts": [unknown]}, python="ours")],
            rounds=1,
        )
        logins: int | None = stranger.logins() if asked.count(OURS) else None
    row.fail(field)
    row.fail(asked)
    row.claims += [
        Claim("bytes lost", field.median(OURS, "bytes_lost"), None, 0, absolute=True),
        Claim("exit statuses lost", field.median(OURS, "statuses_lost"), None, 0, absolute=True),
        Claim("invalid JSON lines in the audit", invalid_lines(log), None, 0, absolute=True),
        Claim("logins to hosts with an unknown key", logins, None, 0, absolute=True),
    ]
    return row


def invalid_lines(log: Path) -> int | None:
    """How many lines are not JSON objects; None when there is no log."""
    if not log.exists():
        return None
    invalid = 0
    for line in log.read_bytes().splitlines():
        try:
            invalid += not isinstance(json.loads(line), dict)
        except ValueError:
            invalid += 1
    return invalid
