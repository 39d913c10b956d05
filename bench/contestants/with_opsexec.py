"""opsexec through its public names, with capability check and audit on (fsync policy: group)."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from bench.contestants.protocol import allow_many_files, job, peak_mb, report, resident_mb
from opsexec import AuditLog, CapabilitySet, Exec, LineSink, OpsError, Shell, StepTimeout, SyncOpts, Tty, connect

if TYPE_CHECKING:
    from opsexec import Executor

GRANTS = CapabilitySet.of("exec:**", "tty:**", "shell:bench.*", "sync.*:/**", "fs.*:/**")


def executor(host: dict[str, Any] | None, audit: Any) -> Executor:
    if host is None:
        return connect("local:", capabilities=GRANTS, audit=audit)
    if "url" in host:
        return connect(
            host["url"], capabilities=GRANTS, audit=audit, config_files=[],
            identity_files=[host["identity"]] if "identity" in host else [], known_hosts=host.get("known_hosts"),
        )  # fmt: skip
    return connect(
        f"ssh://{host['user']}@{host['address']}:{host['port']}", capabilities=GRANTS, audit=audit,
        config_files=[], identity_files=[host["identity"]], known_hosts=host["known_hosts"],
    )  # fmt: skip


async def local(work: dict[str, Any], audit: Any) -> None:
    """As with_asyncio.py."""
    ballast = bytearray(work["ballast_mb"] << 20)
    for at in range(0, len(ballast), 4096):
        ballast[at] = 1
    step = Exec(tuple(work["argv"]))
    gate = asyncio.Semaphore(work["in_flight"])
    async with executor(work.get("host"), audit) as ex:

        async def gated() -> None:
            async with gate:
                out = await ex.run(step)
                assert out.stdout == b"hello\n", out

        await gated()
        start = time.perf_counter()
        if work["in_flight"] == 1:
            for _ in range(work["count"]):
                out = await ex.run(step)
                assert out.stdout == b"hello\n", out
        else:
            await asyncio.gather(*(gated() for _ in range(work["count"])))
        each_s = (time.perf_counter() - start) / work["count"]
        report(each_ms=each_s * 1000, a_second=1 / each_s)


async def steps(work: dict[str, Any], audit: Any) -> None:
    """As with_asyncssh.py; with `in_flight` over 1 all are given at once and queue as opsexec likes."""
    step = Exec(tuple(work["argv"]))
    outcome = {"ok": 0, "errors": 0}

    async def one(ex: Executor) -> None:
        try:
            out = await ex.run(step)
        except OpsError:
            outcome["errors"] += 1
            return
        outcome["ok" if out.exit_code == 0 else "errors"] += 1

    async def on_host(ex: Executor) -> None:
        if work["in_flight"] == 1:
            for _ in range(work["count"]):
                await one(ex)
        else:
            await asyncio.gather(*(one(ex) for _ in range(work["count"])))

    begin = time.perf_counter()
    executors = [executor(host, audit) for host in work["hosts"]]
    if work.get("warm"):
        await asyncio.gather(*(ex.run(step) for ex in executors))
    start = time.perf_counter()
    await asyncio.gather(*(on_host(ex) for ex in executors))
    end = time.perf_counter()
    report(steps_s=end - start, total_s=end - begin, **outcome)
    await asyncio.gather(*(ex.aclose() for ex in executors))


class FirstBlock:
    def __init__(self) -> None:
        self.at = 0.0

    async def write(self, stream: str, data: bytes) -> None:
        if not self.at:
            self.at = time.perf_counter()
            assert data == b"ready\n", data


async def first_line(work: dict[str, Any], audit: Any) -> None:
    """As with_asyncssh.py."""
    async with executor(work["hosts"][0], audit) as ex:
        times = []
        for _ in range(work["count"] + 1):
            sink = FirstBlock()
            start = time.perf_counter()
            await ex.run(Shell(action="bench.first", script=work["script"]), sink)
            times.append(sink.at - start)
    report(first_ms=sorted(times[1:])[len(times[1:]) // 2] * 1000)


class Counter:
    def __init__(self) -> None:
        self.got = 0

    async def write(self, stream: str, data: bytes) -> None:
        self.got += len(data)


async def stream(work: dict[str, Any], audit: Any) -> None:
    """As with_asyncssh.py; the executor's own digest of the output is part of it."""
    async with executor(work["hosts"][0], audit) as ex:
        await ex.run(Exec(("/bin/true",)))
        sink = Counter()
        start = time.perf_counter()
        await ex.run(Exec(tuple(work["argv"])), sink)
        seconds = time.perf_counter() - start
    report(seconds=seconds, mb_s=sink.got / 1e6 / seconds, lost=work["bytes"] - sink.got, own_peak_mb=peak_mb())


async def lines(work: dict[str, Any], audit: Any) -> None:
    """Each line as an event of its own."""
    got = 0

    def on_line(stream: str, line: bytes) -> None:
        nonlocal got
        got += 1

    async with executor(work["hosts"][0], audit) as ex:
        await ex.run(Exec(("/bin/true",)))
        sink = LineSink(on_line)
        start = time.perf_counter()
        await ex.run(Exec(tuple(work["argv"])), sink)
        await sink.close()
        seconds = time.perf_counter() - start
    report(seconds=seconds, mb_s=work["bytes"] / 1e6 / seconds, lines=got, own_peak_mb=peak_mb())


async def terminal(work: dict[str, Any], audit: Any) -> None:
    """Read a program's output from a terminal to its end."""
    async with executor(work["hosts"][0], audit) as ex:
        await ex.run(Exec(("/bin/true",)))
        start = time.perf_counter()
        session = await ex.open_tty(Tty(argv=tuple(work["argv"])))
        got = 0
        while block := await session.read():
            got += len(block)
        await session.wait()
        await session.aclose()
        seconds = time.perf_counter() - start
    report(seconds=seconds, mb_s=got / 1e6 / seconds, lost=work["bytes"] - got)


async def one(work: dict[str, Any], audit: Any) -> None:
    """Connect, run one command, end."""
    async with executor(work["hosts"][0], audit) as ex:
        await ex.run(Exec(("/bin/true",)))


async def idle(work: dict[str, Any], audit: Any) -> None:
    """As with_asyncssh.py."""
    allow_many_files()
    first = executor(work["hosts"][0], audit)
    await first.run(Exec(("/bin/true",)))
    before, cpu = resident_mb(), time.process_time()
    gate = asyncio.Semaphore(50)

    async def warm(host: dict[str, Any]) -> Executor:
        async with gate:
            ex = executor(host, audit)
            await ex.run(Exec(("/bin/true",)))
            return ex

    executors = await asyncio.gather(*(warm(host) for host in work["hosts"]))
    count = len(executors)
    report(
        host_mb=(resident_mb() - before) / count, host_cpu_ms=(time.process_time() - cpu) / count * 1000,
        total_mb=resident_mb(),
    )  # fmt: skip
    await asyncio.gather(*(ex.aclose() for ex in [first, *executors]))


async def copy(work: dict[str, Any], audit: Any) -> None:
    """Push or pull over the connection that is already open."""
    async with executor(work["hosts"][0], audit) as ex:
        await ex.run(Exec(("/bin/true",)))
        start = time.perf_counter()
        await (ex.push if work["direction"] == "push" else ex.pull)(work["src"], work["dst"], SyncOpts())
        report(seconds=time.perf_counter() - start)


async def hold(work: dict[str, Any], audit: Any) -> None:
    """As with_asyncssh.py."""
    step = Shell(action="bench.hold", script=work["script"])
    async with executor(None if work.get("local") else work["hosts"][0], audit) as ex:
        if work["event"] == "deadline":
            try:
                await ex.run(Shell(action="bench.hold", script=work["script"], timeout_s=work["deadline_s"]))
            except StepTimeout:
                await asyncio.sleep(60)
        elif work["event"] == "cancel":
            task = asyncio.create_task(ex.run(step))
            await asyncio.sleep(work["deadline_s"])
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(60)
        else:
            await ex.run(step)


async def guard_cost(work: dict[str, Any], audit: Any) -> None:
    """Median seconds of blocks of steps, check and audit on and off in turns, over one connection."""
    import statistics  # here, because starting this process is measured elsewhere

    step = Exec(tuple(work["argv"]))
    taken: dict[bool, list[float]] = {True: [], False: []}
    async with executor(work["hosts"][0], audit) as ex:
        await ex.run(step)
        for _ in range(work["blocks"]):
            for guarded in (True, False):
                # Private, because there is no public way to do without the check and the records.
                off = {"_admit": lambda _: ("0123456789abcdef", {}), "_record_outcome": lambda *_: None}
                vars(ex).update({} if guarded else off)
                start = time.perf_counter()
                for _ in range(work["count"]):
                    await ex.run(step)
                taken[guarded].append(time.perf_counter() - start)
                for name in () if guarded else off:
                    delattr(ex, name)
    report(guarded_s=statistics.median(taken[True]), bare_s=statistics.median(taken[False]))


async def counters(work: dict[str, Any], audit: Any) -> None:
    """Output of known size and every exit status, on every host; what is missing is counted."""
    bytes_lost = statuses_lost = 0
    for host in work["hosts"]:
        async with executor(host, audit) as ex:
            for size in work["sizes"]:
                sink = Counter()
                await ex.run(Exec(("/usr/bin/head", "-c", str(size), "/dev/zero")), sink)
                bytes_lost += abs(size - sink.got)
            for status in range(work["statuses"]):
                out = await ex.run_streaming(Shell(action="bench.exit", script=f"exit {status}"))
                statuses_lost += out.exit_code != status
    report(bytes_lost=bytes_lost, statuses_lost=statuses_lost)


async def strangers(work: dict[str, Any], audit: Any) -> None:
    """Ask for a step on hosts whose keys are not known: none may get as far as a login."""
    refused = 0
    for host in work["hosts"]:
        try:
            async with executor(host, audit) as ex:
                await ex.run(Exec(("/bin/true",)))
        except OpsError:
            refused += 1
    report(refused=refused)


ALL = (local, steps, first_line, stream, lines, terminal, one, idle, copy, hold, guard_cost, counters, strangers)
WORKS = {f.__name__: f for f in ALL}


async def main() -> None:
    work = job()
    audit = AuditLog.open(work.get("audit_path") or os.environ["OPSEXEC_AUDIT"])
    try:
        await WORKS[work["work"]](work, audit)
    finally:
        audit.close()


asyncio.run(main())
