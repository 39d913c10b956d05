"""What ends a container: its deadline, a cancelled or killed caller, too much output, a sink or input that breaks."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from opsexec.errors import HostUnsuitable, LimitExceeded, StepTimeout
from opsexec.steps import (
    ContainerCopyIn,
    ContainerCopyOut,
    ContainerCreate,
    ContainerExec,
    ContainerList,
    ContainerRemove,
    ContainerRun,
    ContainerStart,
    ImageBuild,
)
from tests.parts.container_engine import OURS, TINY, Ways
from tests.parts.engine_door import EngineDoor
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
REPOSITORY = Path(__file__).parents[2]
STUBBORN = ["/bin/sh", "-c", "trap '' TERM HUP INT; echo up; while :; do sleep 1; done"]
END_S = 30.0


@pytest.fixture(params=["local", "ssh", "agent"])
def way(ways: Ways, request: pytest.FixtureRequest) -> Target:
    return ways.target(request.param)


def there(ways: Ways) -> list[str]:
    return ways.engine.labelled("ps", "test.of=containers")


class Begun:
    """A sink that tells when the program has said something."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def write(self, stream: str, data: bytes) -> None:
        self.event.set()


async def test_a_deadline_ends_the_container(way, ways):
    step = ContainerRun(name="late", image=TINY, labels=OURS, argv=STUBBORN, timeout_s=4)
    async with way.connect() as ex:
        with pytest.raises(StepTimeout):
            await ex.run(step)
        await eventually(lambda: there(ways) == [], within_s=END_S, what="it is gone")


async def test_a_cancelled_caller_ends_the_container(way, ways):
    begun = Begun()
    async with way.connect() as ex:
        running = asyncio.create_task(
            ex.run(ContainerRun(name="cancelled", image=TINY, labels=OURS, argv=STUBBORN), begun)
        )
        await asyncio.wait_for(begun.event.wait(), END_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await eventually(lambda: there(ways) == [], within_s=END_S, what="it is gone")


async def test_a_caller_that_is_cancelled_again_and_again_ends_the_container_too(way, ways):
    begun = Begun()
    async with way.connect() as ex:
        running = asyncio.create_task(
            ex.run(ContainerRun(name="cancelled", image=TINY, labels=OURS, argv=STUBBORN), begun)
        )
        await asyncio.wait_for(begun.event.wait(), END_S)
        while not running.done():
            running.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await running
        await eventually(lambda: there(ways) == [], within_s=END_S, what="it is gone")


CALLER = """
import asyncio, json, sys
from opsexec import CapabilitySet, connect
from opsexec.steps import ContainerExec, ContainerRun
from opsexec.testing import MemoryAudit
said = json.loads(sys.argv[1])
kind = {"run": ContainerRun, "exec": ContainerExec}[said.pop("kind")]
reach = said.pop("reach")
class Sink:
    async def write(self, stream, data):
        print("begun", flush=True)
async def main():
    async with connect(**reach, capabilities=CapabilitySet.everything(), audit=MemoryAudit(), config_files=()) as ex:
        await ex.run(kind(**said), Sink())
asyncio.run(main())
"""


def caller(way: Target, kind: str, **fields: object) -> subprocess.Popen[bytes]:
    """Another process that has begun to run a step."""
    reach = {
        "url": way.url,
        "identity_files": [str(each) for each in way.identity_files or ()] or None,
        "known_hosts": way.known_hosts and str(way.known_hosts),
    }
    said = json.dumps({"kind": kind, "reach": reach, **fields})
    process = subprocess.Popen([sys.executable, "-c", CALLER, said], stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


async def test_a_killed_caller_takes_its_container_along(way, ways):
    fields = {"name": "orphan", "image": TINY, "labels": OURS, "argv": STUBBORN}
    with await asyncio.to_thread(lambda: caller(way, "run", **fields)) as process:
        assert there(ways) == ["orphan"]
        process.send_signal(signal.SIGKILL)
    await eventually(lambda: there(ways) == [], within_s=END_S, what="it is gone")


async def test_a_killed_caller_takes_along_what_it_ran_in_a_container(way, ways):
    async with way.connect() as ex:
        await ex.run(ContainerCreate(name="host", image=TINY, labels=OURS, argv=["/bin/sleep", "600"]))
        await ex.run(ContainerStart(name="host", labels=OURS))
        try:
            fields = {"name": "host", "labels": OURS, "argv": [*STUBBORN[:2], f"sleep 501 & {STUBBORN[2]}"]}
            with await asyncio.to_thread(lambda: caller(way, "exec", **fields)) as process:
                assert "sleep 501" in ways.engine.docker("top", "host")
                process.send_signal(signal.SIGKILL)

            def left() -> bool:
                said = ways.engine.docker("top", "host")
                return "501" not in said and "trap" not in said

            await eventually(left, within_s=END_S, what="it has ended")
            assert "sleep 600" in ways.engine.docker("top", "host")
        finally:
            await ex.run(ContainerRemove(name="host", labels=OURS))


async def test_cancelling_ends_what_was_run_in_a_container(way, ways):
    async with way.connect() as ex:
        await ex.run(ContainerCreate(name="host", image=TINY, labels=OURS, argv=["/bin/sleep", "600"]))
        await ex.run(ContainerStart(name="host", labels=OURS))
        try:
            begun = Begun()
            inside = ContainerExec(name="host", labels=OURS, argv=[*STUBBORN[:2], f"sleep 502 & {STUBBORN[2]}"])
            running = asyncio.create_task(ex.run(inside, begun))
            await asyncio.wait_for(begun.event.wait(), END_S)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

            def left() -> bool:
                said = ways.engine.docker("top", "host")
                return "502" not in said and "trap" not in said

            await eventually(left, within_s=END_S, what="it has ended")
        finally:
            await ex.run(ContainerRemove(name="host", labels=OURS))


async def test_too_much_output_ends_the_container(ways):
    step = ContainerRun(name="loud", image=TINY, labels=OURS, argv=["/bin/cat", "/dev/zero"])
    target = ways.target("local")
    async with target.connect("container.run:loud", f"image.read:{TINY}", max_output_bytes=1 << 20) as ex:
        with pytest.raises(LimitExceeded):
            await ex.run(step)
    assert there(ways) == []


async def test_a_slow_sink_slows_the_program_down_and_loses_nothing(way):
    seen = 0

    class Slow:
        async def write(self, stream: str, data: bytes) -> None:
            nonlocal seen
            seen += len(data)
            await asyncio.sleep(0.001)  # what a slow sink is

    step = ContainerRun(name="slow", image=TINY, labels=OURS, argv=["/bin/head", "-c", "20000000", "/dev/zero"])
    async with way.connect() as ex:
        out = await ex.run(step, Slow())
    assert (out.stdout_bytes, seen) == (20_000_000, 20_000_000)
    assert out.truncated


async def test_a_sink_that_breaks_ends_the_container(ways):
    class Broken:
        async def write(self, stream: str, data: bytes) -> None:
            raise ConnectionError("nobody listens")

    async with ways.target("local").connect() as ex:
        with pytest.raises(ConnectionError, match="nobody listens"):
            await ex.run(ContainerRun(name="unheard", image=TINY, labels=OURS, argv=STUBBORN), Broken())
    assert there(ways) == []


async def test_a_sink_or_input_that_breaks_ends_a_copy_and_is_its_error(ways):
    class Broken:
        async def write(self, stream: str, data: bytes) -> None:
            raise RuntimeError("nobody listens")

    async def breaks() -> AsyncIterator[bytes]:
        yield bytes(100)
        raise RuntimeError("nobody speaks")

    async def waits() -> AsyncIterator[bytes]:
        yield bytes(100)
        await asyncio.sleep(3600)  # an input that says nothing more: the other end has to end it

    threads = threading.active_count()
    put = ContainerCopyIn(name="copies", labels=OURS, dest="/home")
    build = ImageBuild(name="opsexec-test/unheard:1", labels=OURS, dockerfile=f"FROM {TINY}\nRUN echo unheard\n")
    async with ways.target("local").connect() as ex:
        await ex.run(ContainerCreate(name="copies", image=TINY, labels=OURS, argv=["/bin/true"], volumes=("/home",)))
        with pytest.raises(RuntimeError, match="nobody listens"):
            await ex.run(ContainerCopyOut(name="copies", labels=OURS, path="/bin"), Broken())
        with pytest.raises(RuntimeError, match="nobody listens"):
            await ex.run(build, Broken())
        with pytest.raises(RuntimeError, match="nobody speaks"):
            await ex.run(put, stdin=breaks())
        with pytest.raises(StepTimeout):
            await ex.run(msgspec.structs.replace(put, timeout_s=1.0), stdin=waits())
        await ex.run(ContainerRemove(name="copies", labels=OURS))
    await eventually(lambda: threading.active_count() <= threads + 1, within_s=10, what="no thread is left")


async def test_an_input_that_breaks_ends_the_container(ways):
    async def breaks() -> AsyncIterator[bytes]:
        yield b"first"
        raise OSError("the disk is gone")

    async with ways.target("local").connect() as ex:
        with pytest.raises(OSError, match="the disk is gone"):
            await ex.run(ContainerRun(name="unfed", image=TINY, labels=OURS, argv=["/bin/cat"]), stdin=breaks())
    assert there(ways) == []


async def test_a_fork_bomb_and_a_glutton_meet_their_limits(ways):
    bomb = "i=0; while [ $i -lt 200 ]; do sleep 30 & i=$((i+1)); done; wait"
    glutton = ["/bin/head", "-c", "300000000", "/dev/zero"]
    fill = "head -c 3000000 /dev/zero > /tmp/x; echo $?; stat -c %s /tmp/x"
    async with ways.target("local").connect() as ex:
        out = await ex.run_streaming(
            ContainerRun(name="bomb", image=TINY, labels=OURS, argv=["/bin/sh", "-c", bomb], pids=32, timeout_s=60)
        )
        assert b"fork" in out.stderr
        out = await ex.run_streaming(
            ContainerRun(
                name="glutton", image=TINY, labels=OURS, memory_bytes=32 << 20, tmpfs={"/tmp": 1 << 30},
                argv=["/bin/sh", "-c", f"{' '.join(glutton)} > /tmp/x"],
            )
        )  # fmt: skip
        assert not out.ok
        assert out.value["oom_killed"]
        out = await ex.run_streaming(
            ContainerRun(name="fills", image=TINY, labels=OURS, argv=["/bin/sh", "-c", fill], tmpfs={"/tmp": 1 << 20})
        )
        assert out.text.split() == ["1", str(1 << 20)]
    assert there(ways) == []


async def test_an_engine_that_is_gone_meanwhile_is_said_and_what_it_left_is_found_by_label(ways, tmp_path, monkeypatch):
    begun = Begun()
    door = EngineDoor(tmp_path / "engine.sock", ways.engine.socket)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{door.path}")
    async with ways.target("local").connect() as ex:
        await door.open()
        running = asyncio.create_task(
            ex.run(ContainerRun(name="bereft", image=TINY, labels=OURS, argv=STUBBORN), begun)
        )
        await asyncio.wait_for(begun.event.wait(), END_S)
        await door.shut()
        with pytest.raises(HostUnsuitable, match=r"broke off|can't be reached|how the container ended"):
            await asyncio.wait_for(running, END_S)
        assert there(ways) == ["bereft"]
        await door.open()
        (row,) = (await ex.run(ContainerList(labels=OURS))).value
        await ex.run(ContainerRemove(name=row["name"], labels=OURS))
        await door.shut()
    assert there(ways) == []
