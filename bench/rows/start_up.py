"""From process start: one remote command, the import, and the command line's help."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job
from bench.verdict import Claim, Row

NAME = "start-up"
TITLE = "one command from process start; import; opsexec --help"
HELP_LIMIT_MS = 150.0


def run(rig: Rig) -> Row:
    """Milliseconds of wall time, taken from outside the process."""
    row = Row(NAME, TITLE)
    rounds = 11
    with rig.host() as server:
        endpoint = server.endpoint()
        job = {"work": "one", "hosts": [as_job(endpoint)]}
        field = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", job, python="ours"),
                Entrant("asyncssh", "with_asyncssh.py", job),
                Entrant("ssh", endpoint.ssh_argv("/bin/true")),
            ],
            rounds=rounds,
        )
    python = [sys.executable, "-c"]
    imports = rig.race(
        [
            Entrant(OURS, [*python, "import opsexec"], python="ours"),
            Entrant("asyncio", [*python, "import asyncio"]),
            Entrant("python", [*python, "pass"]),
        ],
        rounds=rounds,
    )
    program = Path(sys.executable).with_name("opsexec")
    helped = (
        rig.race([Entrant(OURS, [str(program), "--help"], python="ours")], rounds=rounds) if program.exists() else None
    )
    row.take(field, "wall_s", "one command ms", scale=1000)
    row.take(imports, "wall_s", "import ms", scale=1000)
    mine = field.median(OURS, "wall_s")
    row.claims += [
        Claim("one command vs asyncssh", mine, field.median("asyncssh", "wall_s"), 1.1, "s"),
        Claim("one command vs ssh", mine, field.median("ssh", "wall_s"), 3.0, "s"),
        Claim("import vs asyncio", imports.median(OURS, "wall_s"), imports.median("asyncio", "wall_s"), 1.3, "s"),
    ]
    seconds = helped.median(OURS, "wall_s") if helped else None
    if helped:
        row.take(helped, "wall_s", "--help ms", scale=1000)
    row.claims.append(
        Claim("--help", None if seconds is None else seconds * 1000, None, HELP_LIMIT_MS, "ms", absolute=True)
    )
    return row
