"""A connection that breaks, freezes or falls silent: typed errors in time, trees ended, and the next step works."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import ConnectionLost, Exec, HostUnreachable, MakeDir, OpsError, Push, Shell
from opsexec.executor import RunOutput, Stream
from opsexec.far.frames import LEASE_S
from opsexec.hosts.far_run import END_WAIT_S
from tests.integration.conftest import require_sshd
from tests.parts.delay_proxy import DelayProxy, delay_proxy
from tests.parts.holdings import open_files
from tests.parts.ops_agent import OpsAgent
from tests.parts.process_tree import descendants
from tests.parts.sshd import Sshd
from tests.parts.targets import Target, over_ssh
from tests.parts.tree_caller import argv
from tests.parts.trees import LATER_S, Tree, gone, grow, stand
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
TRUE = Exec(argv=("true",))


@pytest.fixture
def server() -> Iterator[Sshd]:
    """A server whose connections the test may kill."""
    require_sshd()
    with Sshd() as own:
        yield own


@pytest.fixture
def host(server: Sshd, ssh_root: Target) -> Target:
    return over_ssh("host", server.endpoint(), ssh_root.audit)


@pytest.fixture
def proxy(server: Sshd) -> Iterator[DelayProxy]:
    with delay_proxy((server.listen[0], server.port)) as running:
        yield running


@pytest.fixture
def behind(server: Sshd, proxy: DelayProxy, host: Target) -> Target:
    """The host behind a proxy that can cut and swallow."""
    return dataclasses.replace(host, url=server.endpoint_behind(proxy.address, proxy.port).url)


def far_halves(server: Sshd) -> list[int]:
    assert server.process is not None
    return [p.pid for p in descendants(server.process.pid) if p.comm.startswith("python")]


def sockets() -> set[str]:
    """The sockets that this process holds."""
    return {to for to in open_files().values() if to.startswith("socket:")}


async def until_closed(before: set[str]) -> None:
    """Wait until no socket is held that was not held before."""
    await eventually(lambda: sockets() <= before, within_s=20, what="the end of the connection's socket")


async def lost(task: asyncio.Task[object], within_s: float = LATER_S) -> ConnectionLost:
    """The typed error that a step under way ends with."""
    with pytest.raises(ConnectionLost) as caught:
        await asyncio.wait_for(task, within_s)
    assert caught.value.hint
    return caught.value


async def test_a_connection_that_was_killed_between_steps_is_opened_again(server: Sshd, host: Target) -> None:
    async with host.connect() as ex:
        for n in range(3):
            before = sockets()
            assert (await ex.run(Exec(argv=("echo", str(n))))).text == f"{n}\n"
            assert server.kill_connections() >= 1
            # Until its end has reached this side, a step could still be sent into the dead connection.
            await until_closed(before)
    assert server.logins() == 3


async def test_a_step_right_after_the_kill_works_or_is_a_typed_error(server: Sshd, host: Target) -> None:
    """Whether the loss has been noticed is a race; its outcomes are these two."""
    async with host.connect() as ex:
        for _ in range(5):
            await ex.run(TRUE)
            server.kill_connections()
            (outcome,) = await asyncio.wait_for(asyncio.gather(ex.run(TRUE), return_exceptions=True), 20)
            assert isinstance(outcome, HostUnreachable | RunOutput)


async def test_a_connection_killed_before_a_copy_has_its_channel_is_lost(ssh_root: Target, tmp_path: Path) -> None:
    """The server has no channel to give at that moment, and that isn't what is told."""
    require_sshd()
    (tmp_path / "file").write_text("x")
    with Sshd(max_sessions=1) as server:
        async with over_ssh("host", server.endpoint(), ssh_root.audit).connect() as ex:
            await ex.run(TRUE)
            copying = asyncio.create_task(ex.run(Push(f"{tmp_path}/file", f"{tmp_path}/copy")))
            await eventually(lambda: "no more sessions" in server.log(), within_s=20, what="it is refused once")
            server.kill_connections()
            assert "before the copy began" in (await lost(copying)).message
    assert not (tmp_path / "copy").exists()


async def test_closing_ends_the_steps_that_are_still_logging_in(
    server: Sshd, behind: Target, proxy: DelayProxy, shared_dir: Path
) -> None:
    before = sockets()
    proxy.blackhole()
    ex = behind.connect()
    tasks = [asyncio.create_task(ex.run(MakeDir(path=f"{shared_dir}/{n}"))) for n in range(3)]
    await eventually(lambda: sockets() - before, within_s=20, what="the connection")
    await ex.aclose()
    proxy.resume()
    for task in tasks:
        assert "closed" in (await lost(task)).message
    assert list(shared_dir.iterdir()) == []
    await until_closed(before)
    assert (await ex.run(TRUE)).ok  # it can be used again
    await ex.aclose()


async def test_an_agent_behind_a_frozen_connection_holds_up_no_closing(
    behind: Target, proxy: DelayProxy, ops_agent: OpsAgent
) -> None:
    through = dataclasses.replace(behind, url=behind.url.replace("ssh://", "agent+ssh://") + str(ops_agent.socket))
    before = sockets()
    ex = through.connect(keepalive_s=600.0)
    assert (await ex.run(TRUE)).ok
    proxy.blackhole()
    async with asyncio.timeout(60):
        await ex.aclose()
    await until_closed(before)


async def test_a_connection_killed_mid_step_is_a_typed_error_and_ends_the_tree(server: Sshd, host: Target) -> None:
    tree = Tree.new("daemon")
    async with host.connect() as ex:
        task = asyncio.create_task(grow(ex, tree))
        await stand([tree])
        server.kill_connections()
        begun = time.monotonic()
        error = await lost(task)
        assert "unknown" in error.message
        assert error.host == ex.host
        await gone([tree], begun + LATER_S - time.monotonic())
        assert (await ex.run(TRUE)).ok


async def test_a_stream_cut_midway_is_an_error_not_a_short_output(behind: Target, proxy: DelayProxy) -> None:
    class Cutting:
        size = 0

        async def write(self, stream: Stream, data: bytes) -> None:
            if self.size <= 5_000_000 < self.size + len(data):
                proxy.cut()
            self.size += len(data)

    async with behind.connect() as ex:
        sink = Cutting()
        task = asyncio.create_task(ex.run(Exec(argv=("head", "-c", "2000000000", "/dev/zero")), sink))
        await lost(task, 10)
        assert sink.size > 5_000_000
        assert (await ex.run(TRUE)).ok


async def test_many_steps_in_a_cut_connection_all_hear_of_it(behind: Target, proxy: DelayProxy) -> None:
    async with behind.connect() as ex:
        await ex.run(TRUE)
        tasks = [asyncio.create_task(ex.run(Exec(argv=("sleep", "64.5")))) for _ in range(50)]
        tasks += [asyncio.create_task(ex.run(Shell(action="t", script="cat"), stdin=never())) for _ in range(5)]
        await asyncio.sleep(0)
        proxy.cut()
        for task in tasks:
            await lost(task)
        outputs = await asyncio.gather(*(ex.run(Exec(argv=("echo", str(n)))) for n in range(20)))
    assert [output.text for output in outputs] == [f"{n}\n" for n in range(20)]


async def never():
    """Input that never comes."""
    await asyncio.Event().wait()
    yield b""


async def test_a_server_that_is_down_between_steps_is_a_typed_error_until_it_is_back(
    server: Sshd, host: Target
) -> None:
    async with host.connect() as ex:
        await ex.run(TRUE)
        server._terminate()
        with pytest.raises(HostUnreachable):
            await asyncio.wait_for(ex.run(TRUE), 20)
        with pytest.raises(HostUnreachable, match="refused"):
            await asyncio.wait_for(ex.run(TRUE), 20)
        server.restart()
        assert (await ex.run(TRUE)).ok


async def test_a_login_cut_at_any_point_is_a_typed_error(behind: Target, proxy: DelayProxy) -> None:
    """The proxy cuts while keys are exchanged, the user proves who it is, or the far half starts."""
    outcomes: set[type] = set()
    for n in range(24):
        async with behind.connect() as ex:
            task = asyncio.create_task(ex.run(TRUE))
            asyncio.get_running_loop().call_later(n * 0.008, proxy.cut)
            (outcome,) = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 10)
            outcomes.add(type(outcome))
    assert outcomes & {HostUnreachable, ConnectionLost}
    assert outcomes <= {HostUnreachable, ConnectionLost, RunOutput}


async def test_a_far_half_that_was_killed_is_a_typed_error_and_is_started_again(server: Sshd, host: Target) -> None:
    """Nobody is left on the host who could end the tree: the error says that its fate is unknown."""
    tree = Tree.new("plain")
    async with host.connect() as ex:
        task = asyncio.create_task(grow(ex, tree))
        await stand([tree])
        (far,) = far_halves(server)
        os.kill(far, signal.SIGKILL)
        assert "unknown" in (await lost(task)).message
        assert (await ex.run(TRUE)).ok
        assert server.logins() == 1
        for pid in tree.pids():
            os.kill(pid, signal.SIGKILL)


async def test_a_far_half_that_was_asked_to_end_takes_its_trees_along(server: Sshd, host: Target) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        tree = Tree.new("daemon")
        async with host.connect() as ex:
            task = asyncio.create_task(grow(ex, tree))
            await stand([tree])
            (far,) = far_halves(server)
            os.kill(far, number)
            await lost(task)
            await gone([tree], 0.5)


async def test_a_frozen_host_is_a_typed_error_within_its_bounds(server: Sshd, host: Target) -> None:
    """Stopped, it can neither answer nor end anything: deadline, cancellation and closing go on without it."""
    async with host.connect() as ex:
        await ex.run(TRUE)
        (far,) = far_halves(server)
        os.kill(far, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            late = asyncio.create_task(ex.run(Exec(argv=("sleep", "64.6"), timeout_s=0.3)))
            stopped = asyncio.create_task(ex.run(Exec(argv=("sleep", "64.7"))))
            await asyncio.sleep(0)  # both steps have been sent by then
            stopped.cancel()
            with pytest.raises(OpsError):
                await asyncio.wait_for(late, END_WAIT_S + 2)
            with pytest.raises((OpsError, asyncio.CancelledError)):
                await asyncio.wait_for(stopped, END_WAIT_S + 2)
            assert time.monotonic() - begun < END_WAIT_S + 2
        finally:
            os.kill(far, signal.SIGCONT)


@pytest.mark.timeout(90)
async def test_silence_is_noticed_on_both_sides(
    server: Sshd, behind: Target, host: Target, proxy: DelayProxy, ssh_user: Target
) -> None:
    """One wait for all that takes a lease: a swallowed connection, and a caller that is stopped."""
    swallowed, stopped = Tree.new("daemon"), Tree.new("daemon")
    caller = await asyncio.create_subprocess_exec(
        *argv(host, [stopped], on_terminal=False), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with behind.connect(keepalive_s=1.0) as ex:
            task = asyncio.create_task(grow(ex, swallowed))
            await stand([swallowed, stopped])
            proxy.blackhole()
            caller.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            await lost(task, 8)
            assert time.monotonic() - begun < 6
            with pytest.raises(HostUnreachable):
                async with behind.connect(connect_timeout_s=0.5) as other:
                    await other.run(TRUE)
            await gone([swallowed, stopped], begun + LEASE_S + LATER_S - time.monotonic())
        caller.send_signal(signal.SIGCONT)
        await asyncio.wait_for(caller.wait(), 10)
    finally:
        if caller.returncode is None:
            caller.kill()
            await caller.wait()


async def test_a_slow_path_is_no_lost_one(server: Sshd, host: Target) -> None:
    with delay_proxy((server.listen[0], server.port), rtt_ms=300) as slow:
        through = dataclasses.replace(host, url=server.endpoint_behind(slow.address, slow.port).url)
        async with through.connect() as ex:
            outputs = await asyncio.gather(*(ex.run(Exec(argv=("echo", str(n)))) for n in range(20)))
            assert [output.text for output in outputs] == [f"{n}\n" for n in range(20)]
