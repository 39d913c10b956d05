"""Names by which a path leads out of its grant."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess

import pytest

from opsexec import Exec, MakeDir, ReadFile, Stat, WriteFile
from opsexec.errors import CapabilityDenied, OpsError, StepFailed
from opsexec.steps import Link, MoveFile, RemoveFile, SetMode
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio

MAGIC = [
    "/proc/self/root/etc/passwd",
    "/proc/1/root/etc/passwd",
    "/proc/thread-self/root/etc/passwd",
    "/proc/self/task/../root/etc/passwd",
    "/proc/self/exe",
    "/proc/self/cwd/etc/passwd",
    "/proc//self/./root//etc/passwd",
]


@pytest.mark.parametrize("path", MAGIC)
async def test_a_magic_link_of_proc_is_followed_as_what_it_says_and_denied_there(target, path):
    async with target.connect("fs.read:/proc/**") as ex:
        with pytest.raises((CapabilityDenied, StepFailed)) as caught:
            await ex.run(ReadFile(path=path))
    assert isinstance(caught.value, CapabilityDenied) or "permission" in str(caught.value).lower(), caught.value


@pytest.mark.parametrize("path", ["/dev/fd/0", "/dev/stdin", "/dev/stdout", "/dev/fd/../../etc/passwd"])
async def test_no_descriptor_of_the_session_is_a_file(target, path):
    async with target.connect("fs.*:/dev/**") as ex:
        for step in (ReadFile(path=path), WriteFile(path=path, content="x")):
            with pytest.raises(OpsError):
                await ex.run(step)
        assert (await ex.run(Stat(path="/dev/null"))).ok  # and the session still serves


async def test_each_kind_of_step_stays_within_its_grant_behind_a_link(target, shared_dir):
    inside, outside = shared_dir / "inside", shared_dir / "outside"
    for directory in (inside, outside):
        directory.mkdir()
        directory.chmod(0o777)
    (outside / "file").write_text("secret")
    (inside / "way").symlink_to(outside)
    (inside / "file").symlink_to(outside / "file")
    (inside / "own").write_text("mine")
    (inside / "own").chmod(0o666)
    before = {name: os.lstat(outside / name) for name in ("file", ".")}
    async with target.connect(f"fs.*:{inside}/**") as ex:
        for step in (
            ReadFile(path=f"{inside}/way/file"),
            ReadFile(path=f"{inside}/file"),
            Stat(path=f"{inside}/way/file"),
            WriteFile(path=f"{inside}/way/file", content="x"),
            WriteFile(path=f"{inside}/file", content="x"),
            WriteFile(path=f"{inside}/way/new/file", content="x", parents=True),
            MakeDir(path=f"{inside}/way/new"),
            MakeDir(path=f"{inside}/way", mode="0700"),
            Link(path=f"{inside}/way/new", target="/etc/passwd"),
            SetMode(path=f"{inside}/way/file", mode="0777"),
            RemoveFile(path=f"{inside}/way/file"),
            RemoveFile(path=f"{inside}/way/x"),
            MoveFile(f"{inside}/way/file", f"{inside}/taken"),
            MoveFile(f"{inside}/own", f"{inside}/way/put"),
            MoveFile(f"{inside}/own", f"{outside}/put"),
        ):
            with pytest.raises(CapabilityDenied):
                await ex.run(step)
        await ex.run(RemoveFile(path=f"{inside}/way"))  # the link itself stands in the grant
        await ex.run(RemoveFile(path=str(inside), recursive=True))
    after = {name: os.lstat(outside / name) for name in ("file", ".")}
    assert [(s.st_mode, s.st_size, s.st_mtime_ns) for s in before.values()] == [
        (s.st_mode, s.st_size, s.st_mtime_ns) for s in after.values()
    ]


async def test_a_mount_in_a_grant_is_part_of_it_but_no_tree_is_removed_across_one(ssh_root, shared_dir):
    (shared_dir / "tree" / "mounted").mkdir(parents=True)
    other = shared_dir / "other"
    other.mkdir()
    (other / "file").write_text("x")
    await asyncio.to_thread(subprocess.run, ["mount", "--bind", other, shared_dir / "tree" / "mounted"], check=True)
    try:
        async with ssh_root.connect(f"fs.*:{shared_dir}/tree/**") as ex:
            assert (await ex.run(ReadFile(path=f"{shared_dir}/tree/mounted/file"))).stdout == b"x"
            with pytest.raises(StepFailed, match="mount"):
                await ex.run(RemoveFile(path=f"{shared_dir}/tree", recursive=True))
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", shared_dir / "tree" / "mounted"], check=True)
    assert (other / "file").exists()


def _group_lives(leader):
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_link_swapped_for_a_directory_again_and_again_never_leads_out(target, shared_dir):
    """The race that a check followed by an open by name loses."""
    inside, outside = shared_dir / "inside", shared_dir / "outside"
    for directory in (inside, outside, inside / "real"):
        directory.mkdir()
        directory.chmod(0o777)
    (outside / "file").write_text("secret")
    (inside / "real" / "file").write_text("own")
    script = (
        f"cd {inside}; while :; do ln -sfn {outside} next && mv -T next way; ln -sfn real next && mv -T next way; done"
    )
    swapper = await asyncio.create_subprocess_exec(  # nice: it would take a core for itself
        "nice", "-n", "10", "/bin/sh", "-c", script, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        seen = set()
        async with target.connect(f"fs.*:{inside}/**") as ex, asyncio.timeout(30):
            for _ in range(150):
                with contextlib.suppress(CapabilityDenied, StepFailed):
                    seen.add((await ex.run(ReadFile(path=f"{inside}/way/file"))).stdout)
                with contextlib.suppress(CapabilityDenied, StepFailed):
                    await ex.run(WriteFile(path=f"{inside}/way/made", content="x"))
    finally:
        os.killpg(swapper.pid, signal.SIGKILL)
        await swapper.wait()
        await eventually(lambda: not _group_lives(swapper.pid), within_s=10, what="the swapper's programs are gone")
    assert seen <= {b"own"}
    assert sorted(p.name for p in outside.iterdir()) == ["file"]


async def test_a_program_named_by_a_path_with_dots_is_the_one_that_is_matched(target):
    async with target.connect("exec:/usr/bin/id") as ex:
        for argv in (
            ["/usr/bin/../bin/env"],
            ["/usr/bin/id/../env"],
            ["//usr//bin//env"],
            ["/proc/self/root/usr/bin/id"],
        ):
            with pytest.raises(CapabilityDenied):
                await ex.run(Exec(argv))
        assert (await ex.run(Exec(["//usr/./bin//id"]))).ok
