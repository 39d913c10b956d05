"""ops-agent on its host: a trivial step, many at once, a gigabyte, its start, and its memory when idle."""

from __future__ import annotations

from typing import Any

from bench.measure import Entrant
from bench.rig import OURS, Rig
from bench.verdict import Claim, Row
from tests.parts.unix_user import current_user

NAME = "agent-host"
TITLE = "ops-agent on its host: a trivial step / 32 in flight / 1 GB of output / cold start / idle memory"
LOCAL = "opsexec, LocalExec"
FLOOR = "posix_spawn"
MANY_A_SECOND = 1000.0
OVER_SPAWNING = 1.3


def run(rig: Rig) -> Row:
    """Milliseconds a command, megabytes (10^6 bytes) a second, seconds, MiB."""
    row = Row(NAME, TITLE)
    job: dict[str, Any] = {"work": "local", "argv": ["/bin/echo", "hello"], "ballast_mb": 0}
    one = {**job, "count": rig.size(400, 50), "in_flight": 1}
    many = {**job, "count": rig.size(800, 100), "in_flight": 32}
    with rig.agents() as agents:
        host = {"url": agents[0].url}
        single = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", {**one, "host": host}, python="ours"),
                Entrant(LOCAL, "with_opsexec.py", one, python="ours"),
            ],
            rounds=7,
        )
        together = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", {**many, "host": host}, python="ours"),
                Entrant(FLOOR, "with_posix_spawn.py", many),
            ]
        )
        size = rig.size(1000, 100) * 1_000_000
        big = rig.scratch / "agent.log"
        with big.open("wb") as file:
            file.truncate(size)
        stream = {"work": "stream", "hosts": [host], "argv": ["/bin/cat", str(big)], "bytes": size}
        output = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", stream, python="ours"),
                Entrant("cat | cat", "with_cat.py", stream),
            ]
        )
        big.unlink()
    place = rig.scratch / "started"
    place.mkdir()
    begun = {"directory": str(place), "user": current_user()}
    started = rig.race([Entrant(OURS, "with_agent_start.py", begun, python="ours")], rounds=7)
    row.take(single, "each_ms", "ms a step")
    row.take(together, "a_second", "steps/s, 32 in flight")
    row.take(output, "mb_s", "MB/s")
    row.take(started, "cold_s", "cold start s")
    row.take(started, "idle_mb", "idle MB")
    rate, spawned = together.median(OURS, "a_second"), together.median(FLOOR, "a_second")
    row.claims.append(
        Claim("a trivial step vs LocalExec", single.median(OURS, "each_ms"), single.median(LOCAL, "each_ms"), 1.6, "ms")
    )
    if rate is not None and rate >= MANY_A_SECOND:
        row.claims.append(Claim("32 in flight", rate, None, MANY_A_SECOND, "steps/s", at_least=True, absolute=True))
    else:
        row.claims.append(
            Claim("32 in flight vs spawning alone", rate, spawned, 1 / OVER_SPAWNING, "steps/s", at_least=True)
        )
    row.claims += [
        Claim("1 GB of output vs cat | cat", output.median(OURS, "mb_s"), output.median("cat | cat", "mb_s"), 0.5,
              "MB/s", at_least=True),
        Claim("the caller's peak memory", output.median(OURS, "own_peak_mb"), None, 64, "MB", absolute=True),
        Claim("cold start to first answer", started.median(OURS, "cold_s"), None, 0.6, "s", absolute=True),
        Claim("idle memory", started.median(OURS, "idle_mb"), None, 45, "MB", absolute=True),
    ]  # fmt: skip
    return row
