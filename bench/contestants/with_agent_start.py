"""An ops-agent from the start of its process to its first answer, and the memory it holds when nothing happens."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.contestants.protocol import job, report
from opsexec import CapabilitySet, Exec, NullAudit, OpsError, connect

QUIET_S = 2.0
"""Seconds without a request before its memory is read."""


async def answered(url: str, deadline: float) -> None:
    """Ask until a step has been answered."""
    async with connect(url, capabilities=CapabilitySet.of("exec:**"), audit=NullAudit()) as ex:
        while True:
            try:
                await ex.run(Exec(("/bin/true",)))
                return
            except OpsError:
                if time.perf_counter() > deadline:
                    raise
                await asyncio.sleep(0.002)


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def judge(url: str, start: float) -> float:
    """Seconds from `start` to the first answer; then a while of quiet."""
    await answered(url, start + 30)
    seconds = time.perf_counter() - start
    await asyncio.sleep(QUIET_S)
    return seconds


def main(work: dict[str, Any]) -> None:
    socket = Path(work["directory"]) / "agent.sock"
    config = socket.with_name("config.toml")
    config.write_text(
        f'[agent]\nlisten = ["unix:{socket}"]\nstate_dir = "{socket.with_name("state")}"\nsocket_mode = "0600"\n'
        f'[[grants]]\nprincipal = "unix:{work["user"]}"\ncapabilities = ["exec:**"]\n'
    )
    argv = [sys.executable, "-m", "agent", "--config", str(config)]
    start = time.perf_counter()
    agent = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        seconds = asyncio.run(judge(f"agent+unix://{socket}", start))
        report(cold_s=seconds, idle_mb=resident_mb(agent.pid))
    finally:
        agent.terminate()
        agent.wait(20)


main(job())
