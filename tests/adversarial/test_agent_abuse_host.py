"""The host turns against the agent: a full disk, a clock that jumps, a log that is rotated under it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opsexec import AgentRpc, CapabilitySet, Exec, NullAudit, Shell
from opsexec.audit import verify
from opsexec.audit.segment import closed_segments
from opsexec.errors import AuditUnavailable, HostUnsuitable, OpsError, StepFailed
from tests.conftest import require
from tests.integration.conftest import require_root
from tests.parts.agent_bytes import Usage
from tests.parts.limits_table import record
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
FAKETIME = next((each for each in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), Path("/nonexistent"))
YEAR_S = 365 * 86400


def rpc(agent: OpsAgent) -> AgentRpc:
    return AgentRpc(agent.url, capabilities=CapabilitySet.everything(), audit=NullAudit())


# -- a full disk ------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of so many bytes at a directory (needs root)."""
    directory.mkdir(mode=0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "opsexec-test", str(directory)], check=True, timeout=20
    )
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True, timeout=20)


async def test_without_room_nothing_new_runs_and_the_chain_stays_whole(tmp_path: Path) -> None:
    require_root()
    agent = OpsAgent()
    agent.state = tmp_path / "state"
    agent.write_config([{"principal": f"unix:{current_user()}", "capabilities": EVERYTHING}])
    with small_disk(agent.state, "1m") as disk, agent:
        async with rpc(agent) as ex:
            await ex.run(Exec(["/bin/true"]))
            long = asyncio.create_task(ex.run(Shell("test.wait", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")))
            await eventually(lambda: len(ex_active(agent)) >= 3, within_s=10, what="the long run is admitted")
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 512)
            refused = 0
            for _ in range(200):
                try:
                    await ex.run(Shell("test.touch", f"echo x >> {tmp_path}/ran"))
                except AuditUnavailable:
                    refused += 1
            with pytest.raises((AuditUnavailable, HostUnsuitable)):
                await ex.start(Shell("test.touch", f"echo x >> {tmp_path}/detached"))
            ran = len((tmp_path / "ran").read_text().split()) if (tmp_path / "ran").exists() else 0
            assert refused + ran >= 200
            assert refused > 150
            assert not (tmp_path / "detached").exists()
            assert verify(agent.state / "audit.jsonl").ok
            (tmp_path / "go").touch()
            with pytest.raises(AuditUnavailable):  # it ran; its outcome can't be recorded, and that is said
                await asyncio.wait_for(long, 20)
            filler.unlink()
            await ex.run(Shell("test.touch", f"echo x >> {tmp_path}/after"))
            started = await ex.start(Exec(["/bin/true"]))
            assert (await ex.attach(started)).exit_code == 0
        assert (tmp_path / "after").read_text() == "x\n"
        assert verify(agent.state / "audit.jsonl").ok
        assert "Traceback" not in agent.said()
        saw = f"{refused} of 200 steps and a detached run refused; chain valid; served again once there was room"
        record("disk-full", "a state_dir of 1 MiB filled to the last byte while a step runs", saw)


async def test_how_a_detached_run_ended_is_known_also_from_a_disk_that_was_full_by_then(tmp_path: Path) -> None:
    require_root()
    agent = OpsAgent()
    agent.state = tmp_path / "state"
    agent.write_config([{"principal": f"unix:{current_user()}", "capabilities": EVERYTHING}])
    waits = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    with small_disk(agent.state, "1m") as disk, agent:
        async with rpc(agent) as ex:
            silent = await ex.start(Shell("test.wait", f"{waits}; exit 3"))
            speaks = await ex.start(Shell("test.wait", f"{waits}; echo something"))
            begun = [disk / "runs" / run / "runner" for run in (silent, speaks)]
            await eventually(lambda: all(each.exists() for each in begun), within_s=30, what="both are under way")
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 512)
            (tmp_path / "go").touch()
            ended = [each.with_name("status") for each in begun]
            await eventually(lambda: all(each.exists() for each in ended), within_s=30, what="both have ended")
            filler.unlink()
            assert (await ex.attach(silent)).exit_code == 3
            with pytest.raises(StepFailed, match="its output can't be kept"):
                await ex.attach(speaks)


async def test_an_agent_begins_on_a_full_disk_and_tells_later_of_terminals_and_schedules_that_were_cut_off(
    tmp_path: Path,
) -> None:
    """Kept from beginning it would be given up after a few tries, and stay away when there is room again."""
    require_root()
    agent = OpsAgent()
    agent.state = tmp_path / "state"
    agent.write_config([{"principal": f"unix:{current_user()}", "capabilities": EVERYTHING}])
    run = "0123456789abcdef"
    with small_disk(agent.state, "1m") as disk:
        (disk / "recordings").mkdir(mode=0o700)
        (disk / "recordings" / f"{run}.open").touch()
        for name in ("runs", "schedules"):
            (disk / name).mkdir(mode=0o700)
        (disk / "schedules" / "nightly.json").write_bytes(b"no schedule")
        (disk / "audit.jsonl").touch()
        (disk / "lock").touch()
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 512)
        with agent:
            async with rpc(agent) as ex:
                with pytest.raises(AuditUnavailable):
                    await ex.run(Exec(["/bin/true"]))
                filler.unlink()
                await eventually(
                    lambda: [each["run"] for each in agent.records() if each["outcome"]] == [run],
                    within_s=60,
                    what="the terminal's end is recorded, once",
                )
                await eventually(
                    lambda: any((each["step"] or {}).get("file") for each in agent.records()),
                    within_s=60,
                    what="the schedule that can't be read is recorded",
                )
                await ex.run(Exec(["/bin/true"]))
                steps = [each["step"] for each in agent.records() if each["step"]]
                assert [each["file"] for each in steps if each["type"] == "schedule.unreadable"] == ["nightly.json"]
        assert not (disk / "recordings" / f"{run}.open").exists()


def ex_active(agent: OpsAgent) -> list[str]:
    """The lines of its audit."""
    return (agent.state / "audit.jsonl").read_text().splitlines()


# -- a clock that jumps -----------------------------------------------------------------------------------------------


async def test_a_clock_that_jumps_changes_no_limit_and_breaks_no_chain(tmp_path: Path) -> None:
    require(FAKETIME.exists(), "needs libfaketime (apt-get install libfaketime)")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    # The kernel's monotonic clock does not jump (clock_gettime(2)); only the wall clock does here too.
    fake |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    own = ("-m", "tests.parts.clock_of_its_own")
    with OpsAgent(environment=fake, program=own, idle_timeout_s=5) as agent:
        async with rpc(agent) as ex:
            stamps = []
            for jump in ("+0", f"+{YEAR_S}", f"-{YEAR_S}", "+0"):
                step = Shell("test.slow", f"touch {tmp_path}/on{jump}; sleep 1; echo done")
                running = asyncio.create_task(ex.run(step))
                await eventually(lambda jump=jump: (tmp_path / f"on{jump}").exists(), within_s=10, what="it runs")  # type: ignore[misc]  # a default binds it now
                offset.write_text(jump)
                begun = time.monotonic()
                output = await asyncio.wait_for(running, 30)
                assert (output.exit_code, output.stdout) == (0, b"done\n")
                assert time.monotonic() - begun < 5
                assert 0.9 < output.duration_s < 5
                run = await ex.start(Exec(["/bin/echo", "detached"]))
                detached = await asyncio.wait_for(ex.attach(run), 10)
                assert detached.stdout == b"detached\n"
                assert 0 <= detached.duration_s < 5
                stamps.append(agent.records()[-1]["ts"])
        assert len({stamp[:4] for stamp in stamps}) == 3
        assert verify(agent.state / "audit.jsonl").ok
    record(
        "clock",
        "wall clock +1 year, -1 year, back, during runs (libfaketime)",
        "runs, limits and durations unchanged; chain valid",
    )


# -- a log that is rotated --------------------------------------------------------------------------------------------


async def test_the_audit_rotates_under_load_without_a_gap() -> None:
    words = ["/bin/true", *("x" * 4000 for _ in range(15))]
    count, at_once = 1200, 12
    with OpsAgent() as agent:
        async with rpc(agent) as ex:
            await ex.run(Exec(words))  # what an agent opens with its first run stays open
            before = Usage.of(agent.pid)
        async with rpc(agent) as ex:
            numbers = iter(range(count))

            async def ask_on() -> None:
                for _ in numbers:
                    await ex.run(Exec(words))

            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(ask_on())
        await eventually(lambda: Usage.of(agent.pid).fds <= before.fds, within_s=10, what="what it let go of is closed")
        after = Usage.of(agent.pid)
        segments = [agent.state / "audit.jsonl", *(path for _, path in closed_segments(agent.state / "audit.jsonl"))]
        size = sum(each.stat().st_size for each in segments)
        assert len(segments) >= 2
        report = verify(agent.state / "audit.jsonl")
        assert report.ok
        outcomes = sum(
            bool(json.loads(line).get("outcome")) for each in segments for line in each.read_text().splitlines()
        )
        assert outcomes == count + 1
        saw = f"{len(segments)} segments, {count} of {count} outcomes, chain valid across them; "
        saw += f"RSS {before.rss_kib // 1024} -> {after.rss_kib // 1024} MiB, descriptors {before.fds} -> {after.fds}"
        record("rotation", f"{size >> 20} MiB of lines from {at_once} callers at once", saw)


@pytest.mark.parametrize("how", ["create 0600", "copytruncate", "nocreate"])
async def test_an_audit_that_something_else_rotates_stops_the_agent_from_running(tmp_path: Path, how: str) -> None:
    program = require("logrotate", "needs logrotate (apt-get install logrotate)")
    with OpsAgent() as agent:
        log = agent.state / "audit.jsonl"
        async with rpc(agent) as ex:
            await ex.run(Exec(["/bin/true"]))
            rules = tmp_path / "rules"
            rules.write_text(f"{log} {{\n  rotate 5\n  {how}\n}}\n")
            rules.chmod(0o600)
            argv = [program, "-f", "-s", str(tmp_path / "state"), str(rules)]
            await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True, timeout=20)
            with pytest.raises(AuditUnavailable):
                await ex.run(Shell("test.touch", f"echo x > {tmp_path}/ran"))
            assert not (tmp_path / "ran").exists()
            os.replace(log.with_name("audit.jsonl.1"), log)
            recovered = True
            try:
                await ex.run(Exec(["/bin/true"]))
            except OpsError:
                recovered = False
        assert recovered
        assert verify(log).ok
    record(
        "logrotate",
        "with create, nocreate and copytruncate",
        "nothing runs until the file is back; then served again, chain valid",
    )
