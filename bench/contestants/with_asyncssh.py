"""Bare asyncssh: one warm connection a host, `conn.run` for each step."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncssh

from bench.contestants.protocol import allow_many_files, job, peak_mb, report, resident_mb

GCM = ["aes128-gcm@openssh.com"]


async def connect(host: dict[str, Any], **options: Any) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        host["address"], host["port"], username=host["user"], client_keys=[host["identity"]],
        known_hosts=host["known_hosts"], config=None, agent_path=None, **options,
    )  # fmt: skip


async def steps(work: dict[str, Any]) -> None:
    """`count` commands on each host, `in_flight` at once a host, hosts side by side."""
    command = " ".join(work["argv"])
    outcome = {"ok": 0, "errors": 0}

    async def one(conn: asyncssh.SSHClientConnection) -> None:
        while True:
            try:
                result = await conn.run(command)
            except asyncssh.ChannelOpenError:
                if work.get("retry"):
                    # sshd counts a session for a moment after its client has seen it end.
                    await asyncio.sleep(0.001)
                    continue
                outcome["errors"] += 1
                return
            outcome["ok" if result.exit_status == 0 else "errors"] += 1
            return

    async def on_host(conn: asyncssh.SSHClientConnection) -> None:
        if work["in_flight"] == 1:
            for _ in range(work["count"]):
                await one(conn)
            return
        gate = asyncio.Semaphore(work["in_flight"])

        async def gated() -> None:
            async with gate:
                await one(conn)

        await asyncio.gather(*(gated() for _ in range(work["count"])))

    begin = time.perf_counter()
    conns = await asyncio.gather(*(connect(host) for host in work["hosts"]))
    if work.get("warm"):
        await asyncio.gather(*(conn.run(command) for conn in conns))
    start = time.perf_counter()
    await asyncio.gather(*(on_host(conn) for conn in conns))
    end = time.perf_counter()
    for conn in conns:
        conn.close()
    report(steps_s=end - start, total_s=end - begin, **outcome)


async def first_line(work: dict[str, Any]) -> None:
    """Milliseconds from asking until the first line is here, the median of `count`."""
    async with await connect(work["hosts"][0]) as conn:
        times = []
        for _ in range(work["count"] + 1):
            start = time.perf_counter()
            process = await conn.create_process(work["script"], encoding=None)
            line = await process.stdout.readline()
            times.append(time.perf_counter() - start)
            assert line == b"ready\n", line
            await process.wait()
    report(first_ms=sorted(times[1:])[len(times[1:]) // 2] * 1000)


class Counter(asyncssh.SSHClientSession[bytes]):
    def __init__(self) -> None:
        self.got = 0
        self.ended = asyncio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.got += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


def ciphers(work: dict[str, Any]) -> dict[str, Any]:
    """As it comes out of the box, or, where the row says so, with the cipher that opsexec prefers."""
    return {"encryption_algs": GCM} if work.get("gcm") else {}


async def stream(work: dict[str, Any]) -> None:
    """Take `bytes` of output through a callback session."""
    async with await connect(work["hosts"][0], **ciphers(work)) as conn:
        await conn.run("/bin/true")
        start = time.perf_counter()
        session = Counter()
        await conn.create_session(lambda: session, work["command"], encoding=None)
        await session.ended.wait()
        seconds = time.perf_counter() - start
    report(
        seconds=seconds,
        mb_s=session.got / 1e6 / seconds,
        lost=work["bytes"] - session.got,
        own_peak_mb=peak_mb(),
    )


async def lines(work: dict[str, Any]) -> None:
    """Take the output line by line, as the documentation shows it."""
    async with await connect(work["hosts"][0], **ciphers(work)) as conn:
        await conn.run("/bin/true")
        start = time.perf_counter()
        got = 0
        async with conn.create_process(work["command"], encoding=None) as process:
            async for _ in process.stdout:
                got += 1
        seconds = time.perf_counter() - start
    report(seconds=seconds, mb_s=work["bytes"] / 1e6 / seconds, lines=got, own_peak_mb=peak_mb())


async def one(work: dict[str, Any]) -> None:
    """Connect, run one command, end."""
    async with await connect(work["hosts"][0]) as conn:
        result = await conn.run("/bin/true", check=True)
        assert result.exit_status == 0


async def idle(work: dict[str, Any]) -> None:
    """Hold a connection to each host; MiB and CPU seconds a host."""
    allow_many_files()
    first = await connect(work["hosts"][0])
    await first.run("/bin/true")
    before, cpu = resident_mb(), time.process_time()
    gate = asyncio.Semaphore(50)

    async def warm(host: dict[str, Any]) -> asyncssh.SSHClientConnection:
        async with gate:
            conn = await connect(host)
            await conn.run("/bin/true")
            return conn

    conns = await asyncio.gather(*(warm(host) for host in work["hosts"]))
    count = len(conns)
    report(
        host_mb=(resident_mb() - before) / count, host_cpu_ms=(time.process_time() - cpu) / count * 1000,
        total_mb=resident_mb(),
    )  # fmt: skip
    for conn in [first, *conns]:
        conn.abort()


async def hold(work: dict[str, Any]) -> None:
    """Run a command that lasts, until an event ends the wait for it."""
    async with await connect(work["hosts"][0]) as conn:
        if work["event"] == "deadline":
            await conn.run(work["script"], timeout=work["deadline_s"])
        elif work["event"] == "cancel":
            task = asyncio.create_task(conn.run(work["script"]))
            await asyncio.sleep(work["deadline_s"])
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(60)
        else:
            await conn.run(work["script"])


WORKS = {f.__name__: f for f in (steps, first_line, stream, lines, one, idle, hold)}
the_job = job()
asyncio.run(WORKS[the_job["work"]](the_job))
