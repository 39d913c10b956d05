"""The socket by which an engine behind SSH is asked: made here, for this user alone, or told why not."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from opsexec.engine import place
from opsexec.errors import UsageError
from opsexec.hosts.port import Host

pytestmark = pytest.mark.anyio


class FakeConnection:
    """A connection whose host never answers: of it, only where it listens here is real."""

    def __init__(self) -> None:
        self.leading: list[asyncio.Task[None]] = []

    def create_task(self, work: Coroutine[Any, Any, None]) -> None:
        self.leading.append(asyncio.ensure_future(work))

    async def create_unix_connection(self, session: object, far: str) -> None:
        await asyncio.Event().wait()


class FakeBehind:
    """A host behind SSH, whose engine's place is known."""

    name = "web1"

    def __init__(self) -> None:
        self.open = cast(Any, FakeConnection())
        place._known[self.open] = "/run/docker.sock"

    async def connection(self) -> Any:
        return self.open


@pytest.fixture
def host() -> Host:
    return cast(Host, FakeBehind())


async def test_the_socket_is_in_a_directory_of_this_users_own_and_goes_with_it(host: Host) -> None:
    async with place.engine_socket(host) as (near, far):
        assert far == "/run/docker.sock"
        assert stat.S_ISSOCK(os.stat(near).st_mode)
        assert stat.S_IMODE(os.stat(os.path.dirname(near)).st_mode) == 0o700
    assert not os.path.exists(os.path.dirname(near))


async def test_nothing_is_left_of_connections_that_were_not_yet_led_on(host: Host) -> None:
    """Each turn of the loop brings one a step further: accepted, made, on its way to the host."""
    connection = cast(Any, host).open
    for turns in range(6):
        before = len(os.listdir("/proc/self/fd"))
        with socket.socket(socket.AF_UNIX) as client:
            async with place.engine_socket(host) as (near, _):
                client.connect(near)
                for _ in range(turns):
                    await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == before, turns
    assert connection.leading
    for task in connection.leading:
        task.cancel()
    await asyncio.wait(connection.leading)


class FakeFarSocket:
    """The engine's socket behind SSH. `told`: what came there."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def get_extra_info(self, name: str) -> None:
        return None

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def write_eof(self) -> None:
        self.told.append("eof")

    def close(self) -> None:
        self.told.append("closed")


class FakeSlowConnection(FakeConnection):
    """A connection whose host is reached only when it is `reached`."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.socket = FakeFarSocket()

    async def create_unix_connection(self, session: Any, far: str) -> None:
        await self.reached.wait()
        session().connection_made(self.socket)


@pytest.mark.parametrize("cut", [True, False])
async def test_what_was_asked_of_an_engine_is_not_asked_any_more_once_nobody_waits(cut: bool) -> None:
    connection = FakeSlowConnection()
    behind = FakeBehind()
    behind.open = cast(Any, connection)
    place._known[behind.open] = "/run/docker.sock"
    with socket.socket(socket.AF_UNIX) as client:
        async with place.engine_socket(cast(Host, behind)) as (near, _):
            client.connect(near)
            client.sendall(b"POST /containers/create HTTP/1.1")
            for _ in range(30):
                await asyncio.sleep(0)
            if not cut:
                connection.reached.set()
                await asyncio.wait(connection.leading)
    connection.reached.set()
    await asyncio.wait(connection.leading)
    assert connection.socket.told[0] == ("eof" if cut else b"POST /containers/create HTTP/1.1")


async def test_a_temporary_directory_whose_name_is_too_long_for_a_socket_is_told(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(UsageError, match="AF_UNIX path too long") as raised:
        async with place.engine_socket(host):
            pass
    assert "TMPDIR" in str(raised.value.hint)
    assert list(long.iterdir()) == []


async def test_a_temporary_directory_that_is_not_there_is_told(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="No such file or directory"):
        async with place.engine_socket(host):
            pass
