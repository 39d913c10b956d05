"""Push and pull, by every carrier over every kind of target: one meaning, one answer."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from pathlib import Path

import pytest

from opsexec import Push, SyncOpts
from opsexec.errors import PrivilegeDenied, StepFailed
from tests.conftest import require
from tests.integration.conftest import require_root
from tests.integration.sync_scene import CARRIERS, TREE, Scene, without_rsync
from tests.parts.sudoers import sudo_rule
from tests.parts.sync_trees import Dir, File, plant, snapshot
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio


def _scene(request: pytest.FixtureRequest) -> Scene:
    require("rsync", "needs rsync")
    carrier, name = request.param
    target = request.getfixturevalue(name)
    assert isinstance(target, Target)
    if carrier == "tar":
        without_rsync(request.getfixturevalue("monkeypatch"), request.getfixturevalue("tmp_path"))
    return Scene(target, carrier, request.getfixturevalue("shared_dir"))


def _ways(*targets: str) -> list[object]:
    return [pytest.param((c, t), id=f"{c}-{t}") for c in CARRIERS for t in targets]


@pytest.fixture(params=_ways("local", "ssh_root", "ssh_user", "agent", "agent_ssh"))
def scene(request: pytest.FixtureRequest) -> Scene:
    """Every carrier over every target."""
    return _scene(request)


@pytest.fixture(params=_ways("local", "ssh_root", "agent", "agent_ssh"))
def root_scene(request: pytest.FixtureRequest) -> Scene:
    """Every carrier where steps run as root."""
    require_root()
    return _scene(request)


@pytest.fixture(params=_ways("ssh_user"))
def user_scene(request: pytest.FixtureRequest) -> Scene:
    """Every carrier where steps run as a plain user."""
    return _scene(request)


def tree(path: Path, node: Dir = TREE) -> bytes:
    """Plant a tree that every login can read."""
    plant(os.fsencode(path), node)
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            full = os.path.join(folder, name)
            if not os.path.islink(full):
                os.chmod(full, os.stat(full).st_mode | 0o055, follow_symlinks=False)
    return os.fsencode(path)


def alike(one: Path, other: Path, *, owners: bool) -> None:
    """Both trees are the same, but for owners where the copier could not give them away."""
    first, second = snapshot(os.fsencode(one)), snapshot(os.fsencode(other))
    if not owners:
        first, second = ({k: (*v[:2], *v[4:]) for k, v in each.items()} for each in (first, second))
    assert second == first


async def test_a_push_copies_all_and_the_next_one_nothing(scene: Scene) -> None:
    source, dst = scene.shared / "source", scene.shared / "dst"
    tree(source)
    dst.mkdir()
    dst.chmod(0o777)
    async with scene.connect() as ex:
        first = await ex.push(f"{source}/", f"{dst}/new/")
        again = await ex.push(f"{source}/", f"{dst}/new/")
        (source / "plain").write_bytes(b"other content")
        third = await ex.push(f"{source}/", f"{dst}/new/")
    assert first.changed
    assert first.value["method"] == scene.method
    assert "<f+++++++++ sent 12 bytes" in first.value["entries"]
    assert "<f+++++++++ line\\#012feed" in first.value["entries"]
    assert "<f+++++++++ not utf-8 \\#377" in first.value["entries"]
    assert "cL+++++++++ link -> plain" in first.value["entries"]
    assert "cd+++++++++ ./" in first.value["entries"]
    assert first.value["changes"] == len(first.value["entries"]) == 13
    assert (again.changed, again.value["changes"]) == (False, 0)
    assert third.value["entries"] == ["<f.st...... plain"]
    alike(source, dst / "new", owners=scene.target.login == "root")


async def test_a_pull_copies_all_and_the_next_one_nothing(scene: Scene, tmp_path: Path) -> None:
    source = scene.shared / "source"
    tree(source)
    async with scene.connect() as ex:
        by_name = await ex.pull(str(source), f"{tmp_path}/")
        again = await ex.pull(str(source), f"{tmp_path}/")
        inside = await ex.pull(f"{source}/", f"{tmp_path}/new")
    assert by_name.value["method"] == scene.method
    assert ">f+++++++++ source/-dash" in by_name.value["entries"]
    assert "cd+++++++++ source/d/e/" in by_name.value["entries"]
    assert (again.changed, again.value["entries"]) == (False, [])
    assert ">f+++++++++ -dash" in inside.value["entries"]
    alike(source, tmp_path / "source", owners=os.geteuid() == 0)
    alike(source, tmp_path / "new", owners=os.geteuid() == 0)


async def test_a_check_predicts_what_the_run_then_does(scene: Scene) -> None:
    source, dst = scene.shared / "source", scene.shared / "dst"
    tree(source)
    tree(dst, Dir({b"plain": File(b"old"), b"extra": Dir({b"x": File()}), b"kept.log": File()}))
    for folder, _, _ in os.walk(dst):
        os.chmod(folder, 0o777)
    if scene.target.login != "root":
        shutil.chown(dst, scene.target.login)
        shutil.chown(dst / "extra", scene.target.login)
        shutil.chown(dst / "plain", scene.target.login)
    before = snapshot(os.fsencode(dst))
    opts = SyncOpts(delete=True, excludes=("*.log", "/d/e"), check=True)
    async with scene.connect() as ex:
        predicted = await ex.push(f"{source}/", str(dst), opts)
        assert snapshot(os.fsencode(dst)) == before
        done = await ex.push(f"{source}/", str(dst), SyncOpts(delete=True, excludes=("*.log", "/d/e")))
    assert predicted.changed
    assert sorted(predicted.value["entries"]) == sorted(done.value["entries"])
    assert {"*deleting   extra/", "*deleting   extra/x"} <= set(done.value["entries"])
    assert sorted(os.listdir(dst)) == sorted([*os.listdir(source), "kept.log"])
    assert sorted(os.listdir(dst / "d")) == ["up"]


async def test_a_file_goes_into_a_directory_over_a_file_or_under_a_new_name(scene: Scene, tmp_path: Path) -> None:
    source, dst = scene.shared / "source file", scene.shared / "dst"
    source.write_bytes(b"content")
    dst.mkdir()
    dst.chmod(0o777)
    (dst / "there").write_bytes(b"old")
    async with scene.connect() as ex:
        for name in ("", "there", "new name"):
            await ex.push(str(source), f"{dst}/{name}")
        await ex.pull(str(source), f"{tmp_path}/pulled")
        await ex.pull(str(source), f"{tmp_path}/")
    assert {path.name: path.read_bytes() for path in dst.iterdir()} == dict.fromkeys(
        ("source file", "there", "new name"), b"content"
    )
    assert (tmp_path / "pulled").read_bytes() == (tmp_path / "source file").read_bytes() == b"content"


async def test_any_name_can_be_copied_by_name(scene: Scene, tmp_path: Path) -> None:
    names = ["a*b", "back\\slash", "-x", "line\nfeed", "\udcff", "+ x", "a:b"]
    if scene.target.is_ssh:
        names = names[:1]  # what differs by name is the ends, not the connection
    dst, out = scene.shared / "dst", tmp_path / "out"
    dst.mkdir()
    dst.chmod(0o777)
    out.mkdir()
    async with scene.connect() as ex:
        for name in names:
            source = scene.shared / name
            source.mkdir()
            (source / name).write_bytes(b"content")
            await ex.push(str(source), str(dst))
            await ex.pull(f"{dst}/{name}", str(out))
            assert (out / name / name).read_bytes() == b"content"


async def test_special_files_and_links_that_lead_out_are_left_out_and_told(scene: Scene, tmp_path: Path) -> None:
    source = scene.shared / "source"
    tree(source, Dir({b"x": File(b"1", 0o4755)}))
    os.mkfifo(source / "fifo")
    (source / "secret").symlink_to("/etc/shadow")
    async with scene.connect() as ex:
        done = await ex.pull(f"{source}/", f"{tmp_path}/out")
    assert sorted(os.listdir(tmp_path / "out")) == ["x"]
    assert (tmp_path / "out" / "x").stat().st_mode & 0o7777 == 0o755
    assert sorted(done.value["skipped"]) == [
        'ignoring unsafe symlink "secret" -> "/etc/shadow"',
        'skipping non-regular file "fifo"',
    ]


async def test_a_link_is_pushed_as_a_link_wherever_it_leads(scene: Scene) -> None:
    source, dst = scene.shared / "source", scene.shared / "dst"
    source.mkdir()
    dst.mkdir()
    dst.chmod(0o777)
    (source / "out").symlink_to("/etc/shadow")
    async with scene.connect() as ex:
        await ex.push(f"{source}/out", f"{dst}/")
    assert os.readlink(dst / "out") == "/etc/shadow"


async def test_bandwidth_is_kept_to(scene: Scene, tmp_path: Path) -> None:
    source = scene.shared / "source"
    source.write_bytes(os.urandom(300_000))
    async with scene.connect() as ex:
        for copy in (ex.pull(str(source), f"{tmp_path}/x", SyncOpts(bandwidth_bytes_s=200_000)),):
            begun = time.monotonic()
            await copy
            assert time.monotonic() - begun > 1.0
    assert (tmp_path / "x").read_bytes() == source.read_bytes()


async def test_a_missing_source_is_named_and_nothing_is_opened(scene: Scene) -> None:
    async with scene.connect() as ex:
        with pytest.raises(StepFailed, match="nowhere"):
            await ex.push(f"{scene.shared}/nowhere", f"{scene.shared}/dst")
        assert getattr(ex._host, "_login", None) is None
        with pytest.raises(StepFailed, match="no such file"):
            await ex.pull(f"{scene.shared}/nowhere", f"{scene.shared}/dst")
        (scene.shared / "file").write_bytes(b"")
        with pytest.raises(StepFailed, match="not a directory"):
            await ex.pull(f"{scene.shared}/file/", f"{scene.shared}/dst")


async def test_a_push_wants_the_directory_above_and_names_it(scene: Scene) -> None:
    source = scene.shared / "source"
    source.mkdir()
    (source / "x").write_bytes(b"1")
    async with scene.connect() as ex:
        with pytest.raises(StepFailed, match=f"{scene.shared}/no/such/dst.*No such file") as caught:
            await ex.push(f"{source}/", f"{scene.shared}/no/such/dst")
    assert "directory" in str(caught.value.hint)


async def test_a_pull_makes_the_directories_above_but_a_check_of_it_none(scene: Scene, tmp_path: Path) -> None:
    source = scene.shared / "source"
    source.mkdir()
    (source / "x").write_bytes(b"1")
    (tmp_path / "file").touch()
    async with scene.connect() as ex:
        assert (await ex.pull(f"{source}/", f"{tmp_path}/of/web1/", SyncOpts(check=True))).changed
        assert not (tmp_path / "of").exists()
        await ex.pull(f"{source}/", f"{tmp_path}/of/web1/")
        assert (tmp_path / "of/web1/x").read_bytes() == b"1"
        with pytest.raises(StepFailed, match=r"can't make .*/file/web1 on this machine: Not a directory"):
            await ex.pull(f"{source}/", f"{tmp_path}/file/web1/x/")


async def test_what_can_not_be_read_is_told_and_the_rest_is_copied(user_scene: Scene, tmp_path: Path) -> None:
    scene = user_scene
    source = scene.shared / "source"
    tree(source, Dir({b"x": File(b"1"), b"y": File(b"2")}))
    (source / "x").chmod(0)
    out = tmp_path / "out"
    out.mkdir()
    (out / "extra").write_bytes(b"")
    async with scene.connect() as ex:
        with pytest.raises(StepFailed, match="x"):
            await ex.pull(f"{source}/", f"{out}/")
        assert (out / "y").read_bytes() == b"2"
        source.chmod(0o711)
        with pytest.raises(StepFailed):
            await ex.pull(f"{source}/", f"{out}/", SyncOpts(delete=True))
    assert (out / "extra").exists()
    source.chmod(0o755)


async def test_root_copies_as_another_user(root_scene: Scene, plain_user: str) -> None:
    scene = root_scene
    source, dst = scene.shared / "source", scene.shared / "dst"
    tree(source)
    dst.mkdir()
    shutil.chown(dst, plain_user)
    grants = (f"sync.push:{scene.shared}/**", f"sync.pull:{scene.shared}/**")
    async with scene.connect(*grants, run_as=(plain_user,)) as ex:
        done = await ex.run(Push(f"{source}/", f"{dst}/", run_as=plain_user))
        (scene.shared / "closed").mkdir(mode=0o700)
        with pytest.raises(StepFailed, match=r"(?i)permission denied"):
            await ex.run(Push(f"{source}/", f"{scene.shared}/closed/", run_as=plain_user))
    assert done.value["method"] == scene.method
    assert {path.stat().st_uid for path in dst.rglob("*") if not path.is_symlink()} == {pwd.getpwnam(plain_user).pw_uid}


async def test_a_plain_user_copies_as_another_by_sudo_or_is_told_why_not(user_scene: Scene, plain_user: str) -> None:
    scene = user_scene
    require("sudo", "needs sudo")
    source, dst = scene.shared / "source", scene.shared / "dst"
    tree(source)
    dst.mkdir()
    grants = (f"sync.push:{scene.shared}/**",)
    async with scene.connect(*grants, run_as=("root",)) as ex:
        with pytest.raises(PrivilegeDenied, match="can't become root"):
            await ex.run(Push(f"{source}/", f"{dst}/", run_as="root"))
        with sudo_rule(f"{plain_user} ALL=(root) NOPASSWD: ALL"):
            done = await ex.run(Push(f"{source}/", f"{dst}/", run_as="root"))
    assert done.value["method"] == scene.method
    alike(source, dst, owners=True)


async def test_a_user_that_does_not_exist_is_no_lost_connection(scene: Scene) -> None:
    source = scene.shared / "source"
    source.mkdir()
    async with scene.connect(f"sync.push:{scene.shared}/**", run_as=("nobody-of-that-name",)) as ex:
        with pytest.raises(PrivilegeDenied):
            await ex.run(Push(f"{source}/", f"{scene.shared}/dst/", run_as="nobody-of-that-name"))
