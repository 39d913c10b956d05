"""However a copy ends, it says why, nothing of it runs on, and nothing half-made is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from opsexec import Pull, Push
from opsexec.errors import ConnectionLost, OpsError, StepFailed, StepTimeout
from opsexec.host_executor import HostExecutor
from tests.conftest import require
from tests.integration.conftest import require_root
from tests.integration.sync_scene import Scene, Slow, nothing_left, rsyncs_and_ends, slow_file, without_rsync
from tests.parts.delay_proxy import delay_proxy
from tests.parts.holdings import Holdings
from tests.parts.process_tree import alive
from tests.parts.sshd import Sshd
from tests.parts.targets import Target, over_ssh
from tests.parts.waiting import eventually, eventually_now

pytestmark = pytest.mark.anyio

RSYNC = ["rsync-local", "rsync-ssh_root", "rsync-ssh_user", "rsync-held-ssh_root", "rsync-agent", "rsync-held-agent"]
TAR = ["tar-local", "tar-ssh_root", "tar-ssh_user", "tar-agent"]


def _scene(request: pytest.FixtureRequest) -> Scene:
    require("rsync", "needs rsync")
    carrier, _, name = request.param.rpartition("-")
    target = request.getfixturevalue(name)
    assert isinstance(target, Target)
    if carrier == "tar":
        without_rsync(request.getfixturevalue("monkeypatch"), request.getfixturevalue("tmp_path"))
    return Scene(target, carrier, request.getfixturevalue("shared_dir"))


@pytest.fixture(params=RSYNC + TAR)
def scene(request: pytest.FixtureRequest) -> Scene:
    """Every carrier over targets that differ in how it ends."""
    return _scene(request)


@pytest.fixture(params=[way for way in RSYNC + TAR if not way.endswith("local")])
def ssh_scene(request: pytest.FixtureRequest) -> Scene:
    """Those with a connection."""
    return _scene(request)


@pytest.fixture(params=RSYNC)
def rsync_scene(request: pytest.FixtureRequest) -> Scene:
    """Those whose two ends can be told apart in the process table."""
    return _scene(request)


@pytest.fixture(params=TAR)
def tar_scene(request: pytest.FixtureRequest) -> Scene:
    """Those without rsync."""
    return _scene(request)


@asynccontextmanager
async def warm(scene: Scene) -> AsyncIterator[HostExecutor]:
    """An executor that has copied already: what stays of that (a connection, the watchdog) is no leftover."""
    (scene.shared / "warm").write_bytes(b"")
    (scene.shared / "warmed").mkdir()
    (scene.shared / "warmed").chmod(0o777)
    async with scene.connect() as ex:
        await ex.push(f"{scene.shared}/warm", f"{scene.shared}/warmed/")
        yield ex


def left_since(before: Holdings, scene: Scene) -> list[str]:
    """What is held more than before; of links to an agent, another one may stand in the pool for one that was cut."""
    left = before.left_since()
    links = [each for each in left if "socket" in each] if scene.target.url.startswith("agent") else []
    return [each for each in left if each not in links[:1]]


@pytest.mark.parametrize("kind", [Push, Pull])
async def test_a_cancelled_copy_leaves_nothing_on_either_side(
    scene: Scene, sshd: Sshd, kind: type[Push | Pull]
) -> None:
    async with warm(scene) as ex:
        before = Holdings.now()
        with nothing_left(sshd):
            slow = Slow(scene, ex, kind=kind)
            await slow.under_way()
            slow.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow.task
        assert Holdings.now().left_since() == [] == left_since(before, scene)
        await eventually(lambda: not slow.left_at_destination(), within_s=1, what="no half-written file")
        assert (await ex.push(str(slow.source / "file"), f"{scene.shared}/warmed/")).changed


async def test_a_copy_cancelled_at_any_moment_leaves_nothing(scene: Scene, sshd: Sshd) -> None:
    source, dst = scene.shared / "source", scene.shared / "dst"
    source.mkdir()
    dst.mkdir()
    dst.chmod(0o777)
    for number in range(50):
        (source / f"{number}").write_bytes(os.urandom(2000))
    async with warm(scene) as ex:
        before = Holdings.now()
        with nothing_left(sshd):
            for number in range(10):
                task = asyncio.ensure_future(ex.push(f"{source}/", f"{dst}/{number}/"))
                await asyncio.wait([task], timeout=number * 0.03)
                task.cancel()
                await asyncio.wait([task], timeout=5)
                assert task.done()
        assert left_since(before, scene) == []


async def test_a_copy_that_is_cancelled_twice_still_leaves_nothing(scene: Scene, sshd: Sshd) -> None:
    async with warm(scene) as ex:
        with nothing_left(sshd):
            slow = Slow(scene, ex)
            await slow.under_way()
            for _ in range(3):
                slow.task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([slow.task], timeout=5)
            assert slow.task.done()


async def test_a_passed_deadline_is_a_timeout_and_leaves_nothing(scene: Scene, sshd: Sshd) -> None:
    async with warm(scene) as ex:
        before = Holdings.now()
        with nothing_left(sshd):
            slow = Slow(scene, ex, timeout_s=1.5)
            with pytest.raises(StepTimeout, match=r"over 1\.5 s"):
                await slow.task
        assert left_since(before, scene) == []


async def test_closing_the_executor_ends_a_copy(ssh_scene: Scene, sshd: Sshd) -> None:
    with nothing_left(sshd):
        async with ssh_scene.connect() as ex:
            slow = Slow(ssh_scene, ex)
            await slow.under_way()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(slow.task, 20)


@pytest.mark.parametrize("carrier", ["rsync", "tar"])
@pytest.mark.parametrize("how", ["cut", "killed"])
async def test_a_connection_that_is_lost_is_no_failed_step(
    sshd: Sshd,
    ssh_root: Target,
    shared_dir: Path,
    how: str,
    carrier: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    require("rsync", "needs rsync")
    if carrier == "tar":
        without_rsync(monkeypatch, tmp_path)
    with delay_proxy((sshd.listen[0], sshd.port)) as proxy:
        target = over_ssh("proxied", sshd.endpoint_behind(proxy.address, proxy.port), ssh_root.audit)
        scene = Scene(target, carrier, shared_dir)
        async with warm(scene) as ex:
            before = Holdings.now()
            with nothing_left(sshd):
                slow = Slow(scene, ex)
                await slow.under_way()
                sessions = sshd.session_pids()
                if how == "cut":
                    proxy.cut()
                else:
                    for pid in sessions:
                        os.kill(pid, signal.SIGKILL)
                with pytest.raises(ConnectionLost, match="while copying"):
                    await asyncio.wait_for(slow.task, 20)
                proxy.cut()
            assert [left for left in before.left_since() if "socket" not in left] == []
            assert (await ex.push(str(slow.source / "file"), f"{shared_dir}/warmed/")).changed


@pytest.mark.parametrize("side", ["here", "there"])
async def test_an_rsync_that_is_killed_is_named(rsync_scene: Scene, sshd: Sshd, side: str) -> None:
    error = await _killed(rsync_scene, sshd, side)
    assert "SIGKILL" in str(error)
    assert ("this machine" if side == "here" else "the host's") in str(error)


async def test_a_tar_end_that_is_killed_fails_the_step(tar_scene: Scene, sshd: Sshd) -> None:
    assert "on this machine" in str(await _killed(tar_scene, sshd, "here"))


async def _killed(scene: Scene, sshd: Sshd, side: str) -> OpsError:
    async with warm(scene) as ex:
        before = Holdings.now()
        with nothing_left(sshd):
            slow = Slow(scene, ex)
            await slow.under_way()
            victims = rsyncs_and_ends(sshd)[side]
            assert victims
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(OpsError) as caught:
                await asyncio.wait_for(slow.task, 20)
        assert left_since(before, scene) == []
    assert not isinstance(caught.value, ConnectionLost)
    return caught.value


@pytest.fixture
def small_disk(shared_dir: Path) -> Iterator[Path]:
    require_root()
    disk = shared_dir / "disk"
    disk.mkdir()
    subprocess.run(
        [require("mount", "needs mount"), "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", str(disk)], check=True
    )
    yield disk
    subprocess.run([require("umount", "needs umount"), str(disk)], check=True)


async def test_a_full_disk_is_told_and_leaves_the_old_file(scene: Scene, small_disk: Path, sshd: Sshd) -> None:
    (scene.shared / "file").write_bytes(os.urandom(3 << 20))
    (small_disk / "file").write_bytes(b"old")
    (small_disk / "file").chmod(0o666)
    if scene.target.login != "root":
        import shutil

        shutil.chown(small_disk / "file", scene.target.login)
    async with warm(scene) as ex:
        with nothing_left(sshd):
            with pytest.raises(StepFailed, match="No space left") as caught:
                await ex.push(str(scene.shared / "file"), f"{small_disk}/")
            assert "free space" in str(caught.value.hint)
            with pytest.raises(StepFailed, match="No space left"):
                await ex.pull(str(scene.shared / "file"), f"{small_disk}/")
    assert [(path.name, path.read_bytes()) for path in small_disk.iterdir()] == [("file", b"old")]


async def test_a_copy_does_not_hold_the_event_loop_up(scene: Scene) -> None:
    source, dst = scene.shared / "source", scene.shared / "dst"
    source.mkdir()
    dst.mkdir()
    dst.chmod(0o777)
    (source / "big").write_bytes(os.urandom(16 << 20))
    longest = 0.0
    async with warm(scene) as ex:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(ex.push(f"{source}/", f"{dst}/x/"))
        last = loop.time()
        while not task.done():
            await asyncio.sleep(0)
            longest, last = max(longest, loop.time() - last), loop.time()
        await task
    assert longest < 0.25


CALLER = """
import asyncio, sys
from opsexec import CapabilitySet, NullAudit, SyncOpts, connect
async def main(url, identity, known_hosts, source, dst):
    keys = dict(identity_files=[identity], known_hosts=known_hosts) if identity else {}
    async with connect(url, capabilities=CapabilitySet.everything(), audit=NullAudit(), config_files=(), **keys) as ex:
        print("copying", flush=True)
        await ex.push(source, dst, SyncOpts(bandwidth_bytes_s=524288))
asyncio.run(main(*sys.argv[1:]))
"""


def test_a_caller_that_is_killed_leaves_nothing(scene: Scene, sshd: Sshd) -> None:
    source, dst = scene.shared / "source", scene.shared / "dst"
    source.mkdir()
    dst.mkdir()
    dst.chmod(0o777)
    slow_file(source / "file")
    target = scene.target
    keys = [str(target.identity_files[0]), str(target.known_hosts)] if target.identity_files else ["", ""]
    with nothing_left(sshd, within_s=3.0):
        caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, target.url, *keys, f"{source}/", f"{dst}/"], stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        eventually_now(lambda: any(p.stat().st_size for p in dst.iterdir()), within_s=20, what="the copy is under way")
        started = rsyncs_and_ends(sshd)
        caller.kill()
        caller.wait()
        eventually_now(
            lambda: not [pid for pids in started.values() for pid in pids if alive(pid)],
            within_s=3, what="both ends are gone",
        )  # fmt: skip
