"""Local commands with `asyncio.create_subprocess_exec` and communicate()."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.contestants.protocol import job, report


async def one(argv: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, process.returncode
    assert out == b"hello\n", out


async def run(work: dict[str, Any]) -> None:
    ballast = bytearray(work["ballast_mb"] << 20)
    for at in range(0, len(ballast), 4096):
        ballast[at] = 1
    gate = asyncio.Semaphore(work["in_flight"])

    async def gated() -> None:
        async with gate:
            await one(work["argv"])

    await one(work["argv"])
    start = time.perf_counter()
    if work["in_flight"] == 1:
        for _ in range(work["count"]):
            await one(work["argv"])
    else:
        await asyncio.gather(*(gated() for _ in range(work["count"])))
    report(each_ms=(time.perf_counter() - start) / work["count"] * 1000)


asyncio.run(run(job()))
