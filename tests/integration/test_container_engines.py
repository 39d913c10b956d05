"""An engine that isn't there, hangs, or is none: a typed error with a hint, in bounded time, and no thread left."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
from pathlib import Path
from typing import get_args

import pytest

from opsexec import CapabilitySet, LocalExec, connect
from opsexec.engine import client
from opsexec.errors import (
    ConnectionLost,
    HostUnreachable,
    HostUnsuitable,
    OpsError,
    ProtocolError,
    StepTimeout,
    UsageError,
)
from opsexec.host_executor import HostExecutor
from opsexec.steps import ContainerExec, ContainerInspect, ContainerList, ContainerRun, NetworkCreate, ReadFile
from opsexec.testing import MemoryAudit
from tests.integration.conftest import require_sshd
from tests.parts.container_engine import OURS, TINY
from tests.parts.fake_engine import Manner, fake_engine
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio

STEPS = (
    ContainerInspect(name="any"),
    ContainerList(labels=OURS),
    NetworkCreate(name="any", labels=OURS),
    ContainerRun(name="any", image=TINY, labels=OURS, argv=["/bin/true"]),
)


def executor() -> HostExecutor:
    return LocalExec(capabilities=CapabilitySet.everything(), audit=MemoryAudit())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


async def test_no_engine_is_said_with_where_it_was_looked_for(place):
    async with executor() as ex:
        with pytest.raises(HostUnsuitable, match=r"no container engine at .*engine.sock") as caught:
            await ex.run(STEPS[0])
    assert "dockerd" in (caught.value.hint or "")


async def test_a_socket_that_nobody_serves_any_more_is_said(place):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place))
    async with executor() as ex:
        with pytest.raises(HostUnsuitable, match="refused"):
            await ex.run(STEPS[0])


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:2375", "ssh://root@x", "http://x", "unix://relative", "fd://"])
async def test_an_engine_that_is_asked_over_a_network_is_refused(address, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", address)
    async with executor() as ex:
        with pytest.raises(UsageError, match="not a unix socket"):
            await ex.run(STEPS[0])


async def test_somebody_elses_socket_gets_no_word(place, plain_user):
    import os
    import pwd

    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(place))
        theirs.listen()
        os.chown(place, pwd.getpwnam(plain_user).pw_uid, -1)
        async with executor() as ex:
            with pytest.raises(HostUnsuitable, match="not a socket of root's"):
                await ex.run(STEPS[0])
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):
            theirs.accept()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("manner", get_args(Manner))
async def test_what_answers_like_no_engine_is_an_error_in_bounded_time(manner, step, place, monkeypatch):
    monkeypatch.setattr(client, "CALL_S", 2.0)
    threads = threading.active_count()
    async with fake_engine(place, manner) as engine, executor() as ex:
        with pytest.raises((HostUnsuitable, ProtocolError, StepTimeout)) as caught:
            await ex.run(type(step)(**{f: getattr(step, f) for f in step.__struct_fields__} | {"timeout_s": 1.0}))
        assert caught.value.hint
        await eventually(lambda: engine.connections == 0, within_s=10, what="its connections are closed")
    await eventually(lambda: threading.active_count() <= threads, within_s=10, what="no thread is left")


async def test_what_is_one_question_and_one_answer_loads_no_package_for_streams(place):
    """It takes as long to load as an engine takes to make a network, while a launch waits for both."""
    script = """import asyncio, sys
from opsexec import CapabilitySet, LocalExec
from opsexec.errors import ProtocolError
from opsexec.steps import NetworkCreate
from opsexec.testing import MemoryAudit
async def main():
    async with LocalExec(capabilities=CapabilitySet.everything(), audit=MemoryAudit()) as ex:
        try:
            await ex.run(NetworkCreate(name="any", labels={"a": "b"}))
        except ProtocolError:
            print("asked")
asyncio.run(main())
print(sorted({"docker", "requests", "urllib3"} & set(sys.modules)))
"""
    async with fake_engine(place, "liar"):
        program = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        said, _ = await program.communicate()
    assert said.decode().split("\n") == ["asked", "[]", ""]


async def test_a_call_that_is_cancelled_twice_leaves_no_error_that_nobody_looked_at(place):
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with fake_engine(place, "silent") as engine, executor() as ex:
        asking = asyncio.ensure_future(ex.run(STEPS[0]))
        await eventually(lambda: engine.connections == 1, within_s=10, what="the engine is asked")
        for _ in range(2):  # the second comes while the first still cuts the connection
            asking.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await asking
        await eventually(lambda: engine.connections == 0, within_s=10, what="the connection is cut")
        del asking
        await eventually(lambda: not _aside_calls(), within_s=10, what="the call's task is over")
    gc.collect()
    assert told == []


def _aside_calls() -> list[asyncio.Task[object]]:
    return [each for each in asyncio.all_tasks() if "Aside.do" in repr(each.get_coro())]


async def test_a_call_without_a_deadline_of_its_own_is_bounded_too(place, monkeypatch):
    monkeypatch.setattr(client, "CALL_S", 0.5)
    async with fake_engine(place, "drip"), executor() as ex:
        with pytest.raises(StepTimeout, match=r"gave no answer within 0.5 s"):
            await ex.run(STEPS[0])


async def test_over_ssh_an_engine_that_is_not_there_is_said(tmp_path):
    require_sshd()
    variable = f"SetEnv DOCKER_HOST=unix://{tmp_path}/none.sock"
    with Sshd(extra=[variable]) as sshd:
        at = sshd.endpoint()
        ex = connect(
            at.url, capabilities=CapabilitySet.everything(), audit=MemoryAudit(), identity_files=[str(at.identity)],
            known_hosts=str(at.known_hosts), config_files=(),
        )  # fmt: skip
        async with ex:
            with pytest.raises(HostUnsuitable, match=r"none\.sock can't be reached") as caught:
                await ex.run(STEPS[0])
    assert "AllowStreamLocalForwarding" in (caught.value.hint or "")


async def test_over_ssh_a_server_that_forwards_no_socket_is_said(place):
    require_sshd()
    variable = f"SetEnv DOCKER_HOST=unix://{place}"
    async with fake_engine(place, "liar"):
        with Sshd(extra=[variable, "AllowStreamLocalForwarding no"]) as sshd:
            at = sshd.endpoint()
            ex = connect(
                at.url, capabilities=CapabilitySet.everything(), audit=MemoryAudit(), config_files=(),
                identity_files=[str(at.identity)], known_hosts=str(at.known_hosts),
            )  # fmt: skip
            async with ex:
                with pytest.raises(OpsError, match="can't be reached") as caught:
                    await ex.run(STEPS[0])
    assert "AllowStreamLocalForwarding" in (caught.value.hint or "")


async def test_over_ssh_a_server_without_a_session_for_the_question_is_said(place):
    """The one session it has is the other steps'."""
    require_sshd()
    with Sshd(max_sessions=1) as sshd:
        async with behind(sshd) as ex:
            await ex.run(ReadFile("/etc/hostname"))
            with pytest.raises(HostUnreachable, match="refused a session") as caught:
                await ex.run(STEPS[0])
    assert "MaxSessions" in (caught.value.hint or "")


async def test_over_ssh_a_connection_that_is_cut_while_the_engine_is_looked_for_is_lost(tmp_path):
    """However far the question has come: it is no engine that isn't there, and no error of ours."""
    require_sshd()
    talks = tmp_path / "talks"
    os.mkfifo(talks)  # the question isn't answered before somebody reads it
    with Sshd(extra=[f"ForceCommand echo asked > {talks}; exec sleep 60"]) as sshd:
        async with behind(sshd) as ex:
            asking = asyncio.ensure_future(ex.run(STEPS[0]))
            assert await asyncio.to_thread(talks.read_text) == "asked\n"
            sshd.kill_connections()
            with pytest.raises(ConnectionLost):
                await asking


@pytest.mark.parametrize(
    "step", [STEPS[0], ContainerExec(name="any", argv=["/bin/true"], labels=OURS)], ids=["look", "exec"]
)
async def test_over_ssh_a_connection_that_is_cut_while_the_engine_answers_is_lost(place, step):
    require_sshd()
    asked = asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(engine, place):
        with Sshd(extra=[f"SetEnv DOCKER_HOST=unix://{place}"]) as sshd:
            async with behind(sshd) as ex:
                asking = asyncio.ensure_future(ex.run(step))
                await asyncio.wait_for(asked.wait(), 20)
                sshd.kill_connections()
                with pytest.raises(ConnectionLost, match="while its container engine was asked") as caught:
                    await asking
    assert "dockerd" not in f"{caught.value} {caught.value.hint}"


def behind(sshd: Sshd) -> HostExecutor:
    at = sshd.endpoint()
    return connect(
        at.url, capabilities=CapabilitySet.everything(), audit=MemoryAudit(), config_files=(),
        identity_files=[str(at.identity)], known_hosts=str(at.known_hosts),
    )  # fmt: skip
