"""A terminal through ops-agent, with its recorder and without: what recording costs."""

from __future__ import annotations

from bench.measure import Entrant
from bench.rig import OURS, Rig
from bench.verdict import Claim, Row
from tests.parts.ops_agent import OpsAgent

NAME = "recorder"
TITLE = "a terminal's output through ops-agent, recorded / with the recorder taken out"
OFF = "opsexec, not recorded"
LINE = b"2026-01-01T00:00:00Z host app[4711]: a line of a log, as long as such lines commonly are\r\n"
#: There is no such setting, so the agent is started with a recorder that keeps nothing but the first and last lines.
WITHOUT = (
    "from agent.tty.tape import Tape; Tape.output = lambda tape, data: None; from agent.__main__ import main; main()"
)


def run(rig: Rig) -> Row:
    """Megabytes (10^6 bytes) a second, of 100-byte lines."""
    row = Row(NAME, TITLE)
    size = rig.size(100, 10) * 1_000_000 // len(LINE) * len(LINE)
    big = rig.scratch / "terminal.log"
    big.write_bytes(LINE * (size // len(LINE)))
    # The terminal makes \r\n of each \n, so the file's own \r would be doubled: it is read as it stands.
    script = f"stty raw; exec cat {big}"
    with OpsAgent() as recorded, OpsAgent(program=("-c", WITHOUT)) as bare:
        job = {"work": "terminal", "argv": ["/bin/sh", "-c", script], "bytes": size}
        field = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", {**job, "hosts": [{"url": recorded.url}]}, python="ours"),
                Entrant(OFF, "with_opsexec.py", {**job, "hosts": [{"url": bare.url}]}, python="ours"),
            ],
            rounds=9,
        )
    row.take(field, "mb_s", "MB/s")
    row.claims += [
        Claim("on vs off", field.median(OURS, "mb_s"), field.median(OFF, "mb_s"), 0.8, "MB/s", at_least=True),
        Claim("bytes lost", field.median(OURS, "lost"), None, 0, "bytes", absolute=True),
    ]
    return row
