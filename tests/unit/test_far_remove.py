"""Removing takes what was named and granted, and nothing that a link points to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading

import pytest

from opsexec import CapabilitySet, LocalExec
from opsexec.far.message import FarError
from opsexec.far.perform import perform
from opsexec.far.removal import MAX_DEPTH
from opsexec.hosts import local
from opsexec.steps import RemoveFile
from tests.conftest import require
from tests.parts.far_calls import FarCalls


@pytest.fixture
def base(tmp_path):
    real = tmp_path.resolve()
    (real / "kept").mkdir()
    (real / "kept/file").write_bytes(b"kept")
    (real / "in").mkdir()
    return real


@pytest.fixture
def far(base):
    return FarCalls(f"{base}/in/**")


def code_of(call, *args, **named) -> str:
    with pytest.raises(FarError) as caught:
        call(*args, **named)
    return caught.value.code


def test_a_file_goes_once(base, far):
    (base / "in/f").write_bytes(b"")
    assert far.remove(base / "in/f", check=True)
    assert (base / "in/f").exists()
    assert far.remove(base / "in/f")
    assert not far.remove(base / "in/f")
    assert not far.remove(base / "in/f/below")
    assert not far.remove(base / "in/none/below", recursive=True)


def test_a_link_goes_and_its_target_stays(base, far):
    (base / "in/file").symlink_to("../kept/file")
    (base / "in/tree").symlink_to("../kept")
    (base / "in/dangling").symlink_to("nowhere")
    for name in ("file", "tree", "dangling"):
        assert far.remove(base / "in" / name, recursive=True)
    assert os.listdir(base / "in") == []
    assert (base / "kept/file").read_bytes() == b"kept"


def test_a_full_directory_goes_only_when_its_tree_is_meant(base, far):
    (base / "in/d").mkdir()
    assert far.remove(base / "in/d", check=True)
    (base / "in/d/f").write_bytes(b"")
    assert code_of(far.remove, base / "in/d", check=True) == "not_empty"
    assert code_of(far.remove, base / "in/d") == "not_empty"
    assert far.remove(base / "in/d", recursive=True, check=True)
    assert far.remove(base / "in/d", recursive=True)
    assert os.listdir(base / "in") == []


def test_links_inside_a_tree_are_not_followed(base, far):
    (base / "in/d/e").mkdir(parents=True)
    (base / "in/d/link").symlink_to(base / "kept")
    (base / "in/d/e/up").symlink_to("../../../kept")
    (base / "in/d/e/root").symlink_to("/")
    assert far.remove(base / "in/d", recursive=True)
    assert (base / "kept/file").read_bytes() == b"kept"


def test_a_tree_of_any_depth_goes_with_few_descriptors(base, far):
    depth = 20 * MAX_DEPTH
    fd = os.open(base / "in", os.O_RDONLY)
    os.mkdir("d", dir_fd=fd)
    for _ in range(depth):
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT, 0o600, dir_fd=fd))
    os.close(fd)
    before = os.listdir("/proc/self/fd")
    assert far.remove(base / "in/d", recursive=True)
    assert os.listdir(base / "in") == []
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("patterns", [["in/*"], ["in/d"], ["in/d", "in/d/*"], ["in/d", "in/d/*", "in/d/*/*"]])
def test_a_tree_goes_only_under_a_grant_of_all_below_it(base, patterns):
    (base / "in/d/e/f").mkdir(parents=True)
    far = FarCalls(*(f"{base}/{pattern}" for pattern in patterns))
    assert code_of(far.remove, base / "in/d", recursive=True) == "denied"
    assert code_of(far.remove, base / "in/d", recursive=True, check=True) == "denied"
    assert (base / "in/d/e/f").exists()
    assert FarCalls(f"{base}/in/d/**").remove(base / "in/d", recursive=True)


def test_the_root_is_never_removed():
    assert code_of(FarCalls("/**").remove, "/", recursive=True, check=True) == "bad_request"


def test_another_file_system_in_a_tree_is_not_entered(base, far):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mount = require("mount", "no mount program")
    (base / "in/d/disk").mkdir(parents=True)
    done = subprocess.run([mount, "-t", "tmpfs", "tmpfs", str(base / "in/d/disk")], check=False)
    require(done.returncode == 0, "no tmpfs can be mounted here")
    try:
        (base / "in/d/disk/f").write_bytes(b"kept")
        assert code_of(far.remove, base / "in/d", recursive=True) == "mount"
        assert (base / "in/d/disk/f").read_bytes() == b"kept"
    finally:
        subprocess.run(["umount", str(base / "in/d/disk")], check=True)


@pytest.mark.anyio
async def test_a_removal_that_is_cancelled_takes_no_more(base, monkeypatch):
    """It is done in a thread, which nothing ends: it has to leave off by itself."""
    (base / "in/tree").mkdir()
    for number in range(50):
        (base / "in/tree" / f"f{number}").touch()
    begun, told, over = threading.Event(), threading.Event(), threading.Event()
    real_unlink = os.unlink

    def unlink_and_wait(*args, **named):
        real_unlink(*args, **named)
        begun.set()
        assert told.wait(30)

    def perform_and_tell(*items):
        try:
            return perform(*items)
        finally:
            over.set()

    async with LocalExec(capabilities=CapabilitySet.of(f"fs.remove:{base}/in/**")) as ex:
        monkeypatch.setattr(os, "unlink", unlink_and_wait)
        monkeypatch.setattr(local, "perform", perform_and_tell)
        step = asyncio.create_task(ex.run(RemoveFile(path=f"{base}/in/tree", recursive=True)))
        assert await asyncio.to_thread(begun.wait, 30)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        told.set()
        assert await asyncio.to_thread(over.wait, 30)
    assert len(os.listdir(base / "in/tree")) == 49
