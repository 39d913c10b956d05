"""A copy touches what its grants admit and nothing else, whatever stands or appears on the way."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from opsexec import SyncOpts
from opsexec.errors import CapabilityDenied, StepFailed
from tests.conftest import require
from tests.integration.conftest import require_root
from tests.integration.sync_scene import Scene, without_rsync
from tests.parts.sshd import Sshd
from tests.parts.swapper import Swapper
from tests.parts.sync_trees import Dir, File, plant, snapshot
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio


WAYS = ["rsync-local", "rsync-ssh_root", "rsync-ssh_user", "rsync-agent", "tar-local", "tar-ssh_user", "tar-agent"]


@pytest.fixture(params=WAYS)
def scene(request: pytest.FixtureRequest, shared_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    require("rsync", "needs rsync")
    carrier, _, name = request.param.partition("-")
    target = request.getfixturevalue(name)
    assert isinstance(target, Target)
    if carrier == "tar":
        without_rsync(monkeypatch, tmp_path)
    return Scene(target, carrier, shared_dir)


def places(scene: Scene) -> tuple[Path, Path, Path]:
    """A source, a granted directory and one that isn't, all open to every login."""
    source, inside, outside = (scene.shared / name for name in ("source", "inside", "outside"))
    plant(os.fsencode(source), Dir({b"d": Dir({b"f": File(b"pushed", 0o666)}), b"x": File(b"pushed")}))
    for path in (inside, outside):
        path.mkdir()
        path.chmod(0o777)
    (outside / "f").write_bytes(b"theirs")
    (outside / "f").chmod(0o600)
    if scene.target.login != "root":
        shutil.chown(outside / "f", scene.target.login)
        shutil.chown(inside, scene.target.login)
    return source, inside, outside


async def test_a_destination_that_is_not_granted_opens_no_connection(ssh_root: Target, sshd: Sshd) -> None:
    before = sshd.connections_accepted()
    async with ssh_root.connect("sync.push:/srv/app/**", "sync.pull:/srv/app/**") as ex:
        for path in ("/srv", "/srv/apple", "/srv/app/../other", "/srv/app/../../etc/"):
            with pytest.raises(CapabilityDenied) as caught:
                await ex.push("/etc/hostname", path)
            assert caught.value.layer == "caller"
            with pytest.raises(CapabilityDenied):
                await ex.pull(path, "/tmp")
    assert sshd.connections_accepted() == before


async def test_a_grant_to_push_is_none_to_pull(scene: Scene) -> None:
    async with scene.connect(f"sync.push:{scene.shared}/**") as ex:
        with pytest.raises(CapabilityDenied, match=r"sync\.pull"):
            await ex.pull(f"{scene.shared}/", "/tmp/x")


@pytest.mark.parametrize("ending", ["", "/", "/new", "/f"])
async def test_a_destination_that_leads_out_by_a_link_is_denied(scene: Scene, ending: str) -> None:
    source, inside, outside = places(scene)
    before = snapshot(os.fsencode(outside))
    (inside / "link").symlink_to(outside)
    async with scene.connect(f"sync.push:{inside}/**") as ex:
        with pytest.raises(CapabilityDenied) as caught:
            await ex.push(f"{source}/", f"{inside}/link{ending}", SyncOpts(delete=True))
    assert caught.value.layer == "host"
    assert str(outside) in str(caught.value)
    assert snapshot(os.fsencode(outside)) == before


async def test_a_source_that_leads_out_by_a_link_is_denied_and_the_link_itself_is_copied_as_one(
    scene: Scene, tmp_path: Path
) -> None:
    _, inside, _ = places(scene)
    (inside / "link").symlink_to("../outside")
    (inside / "in").symlink_to("x")
    async with scene.connect(f"sync.pull:{inside}/**") as ex:
        for path in ("link/", "link/f"):
            with pytest.raises(CapabilityDenied):
                await ex.pull(f"{inside}/{path}", f"{tmp_path}/out")
        await ex.pull(f"{inside}/in", f"{tmp_path}/in")
    assert not (tmp_path / "out").exists()
    assert os.readlink(tmp_path / "in") == "x"


async def test_links_within_the_destination_are_replaced_and_not_followed(scene: Scene) -> None:
    source, inside, outside = places(scene)
    before = snapshot(os.fsencode(outside))
    (inside / "d").symlink_to(outside)
    (inside / "x").symlink_to(outside / "f")
    async with scene.connect(f"sync.push:{inside}/**") as ex:
        done = await ex.push(f"{source}/", f"{inside}/")
    assert done.value["method"] == scene.method
    assert snapshot(os.fsencode(outside)) == before
    assert (inside / "d" / "f").read_bytes() == b"pushed"
    assert (inside / "x").read_bytes() == b"pushed"
    assert not (inside / "d").is_symlink()


async def test_grants_for_parts_of_a_tree_hold_entry_by_entry(scene: Scene) -> None:
    source, inside, _ = places(scene)
    (inside / "d").mkdir()
    if scene.target.login != "root":
        shutil.chown(inside / "d", scene.target.login)
    (inside / "d" / "extra").write_bytes(b"")
    async with scene.connect(
        f"sync.push:{inside}", f"sync.push:{inside}/*", f"sync.pull:{inside}/d", f"sync.pull:{inside}/d/e*"
    ) as ex:
        with pytest.raises(CapabilityDenied) as caught:
            await ex.push(f"{source}/", f"{inside}/")
        assert caught.value.needed == f"sync.push:{inside}/d/f"
        assert sorted(os.listdir(inside)) == ["d"]
        done = await ex.push(f"{source}/", f"{inside}/", SyncOpts(excludes=("f",)))
        assert done.value["method"] == "tar"
        assert (inside / "x").read_bytes() == b"pushed"
        with pytest.raises(CapabilityDenied):
            await ex.push(f"{source}/", f"{inside}/", SyncOpts(excludes=("f",), delete=True))
        pulled = await ex.pull(f"{inside}/d", str(scene.shared / "pulled"))
        assert pulled.value["method"] == "tar"
        (inside / "d" / "secret").write_bytes(b"")
        with pytest.raises(CapabilityDenied):
            await ex.pull(f"{inside}/d", str(scene.shared / "pulled"))
    assert not (scene.shared / "pulled" / "d" / "secret").exists()
    assert (inside / "d" / "extra").exists()


async def test_a_grant_of_one_file_admits_that_file_alone(scene: Scene) -> None:
    source, inside, _ = places(scene)
    async with scene.connect(f"sync.push:{inside}/motd", f"sync.pull:{inside}/motd") as ex:
        await ex.push(f"{source}/x", f"{inside}/motd")
        await ex.push(f"{source}/d/f", f"{inside}/motd")
        await ex.pull(f"{inside}/motd", f"{scene.shared}/back")
        (inside / "motd").unlink()
        with pytest.raises(CapabilityDenied):
            await ex.push(f"{source}/", f"{inside}/motd")
    assert (scene.shared / "back").read_bytes() == b"pushed"
    assert sorted(p for p in os.listdir(inside) if p != "motd") == []


async def test_no_swap_of_a_link_makes_a_push_write_outside(scene: Scene) -> None:
    source, inside, outside = places(scene)
    for number in range(30):
        (source / "d" / f"file{number}").write_bytes(b"pushed")
    await _settle(scene, source, inside)
    before = snapshot(os.fsencode(outside))
    (inside / "other").symlink_to(outside)
    async with scene.connect(f"sync.push:{inside}/**") as ex:
        with Swapper("exchange", inside / "d", inside / "other") as swapper:
            for number in range(6):
                for path in (source / "d").iterdir():
                    path.write_bytes(b"%d" % number)
                    os.utime(path, (10**9 + number, 10**9 + number))
                    path.chmod(0o640 + number)
                with contextlib.suppress(StepFailed, CapabilityDenied):
                    await ex.push(f"{source}/", f"{inside}/", SyncOpts(delete=number == 5, excludes=("/other",)))
    assert swapper.count > 1000
    after = snapshot(os.fsencode(outside))
    if scene.target.login != "root" and scene.method == "rsync":
        # Landlock doesn't decide about modes and times, of files that the login owns anyway: see far/confine.py.
        after[b"f"] = (after[b"f"][0], before[b"f"][1], *after[b"f"][2:5], before[b"f"][5])
    assert after == before


async def _settle(scene: Scene, source: Path, inside: Path) -> None:
    async with scene.connect() as ex:
        await ex.push(f"{source}/", f"{inside}/")


async def test_no_swap_of_a_link_makes_a_pull_read_outside(scene: Scene, tmp_path: Path) -> None:
    _, inside, outside = places(scene)
    names = [f"file{number}" for number in range(30)]
    (inside / "d").mkdir()
    for name in names:
        (inside / "d" / name).write_bytes(b"granted")
        (outside / name).write_bytes(b"secret!")
    (inside / "other").symlink_to(outside)
    async with scene.connect(f"sync.pull:{inside}/**") as ex:
        with Swapper("exchange", inside / "d", inside / "other") as swapper:
            for number in range(6):
                with contextlib.suppress(StepFailed, CapabilityDenied):
                    await ex.pull(f"{inside}/", f"{tmp_path}/out{number}/")
    assert swapper.count > 1000
    got = [path for path in tmp_path.glob("out*/**/*") if path.is_file() and b"secret" in path.read_bytes()]
    assert got == []


async def test_root_keeps_nothing_of_its_powers_outside_the_grant(ssh_root: Target, shared_dir: Path) -> None:
    """The rsync that serves root can't even change a mode outside: seen in its own mount table while it works."""
    require_root()
    require("rsync", "needs rsync")
    import asyncio

    from tests.integration.sync_scene import Slow, rsyncs_and_ends

    scene = Scene(ssh_root, "rsync-held", shared_dir)
    async with ssh_root.connect(f"sync.push:{shared_dir}/slow-dst/**") as ex:
        slow = Slow(scene, ex)
        await slow.under_way()
        mounts = [
            line.split()
            for pid in rsyncs_and_ends(None)["there"] + _servers()
            for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        ]
        slow.task.cancel()
        await asyncio.wait([slow.task])
    writable = {words[4] for words in mounts if "rw" in words[5].split(",")}
    assert writable == {str(slow.dst)}


def _servers() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"rsync", b"--server"] and os.readlink(entry / "cwd").endswith("/slow-dst"):
                found.append(int(entry.name))
    return found
