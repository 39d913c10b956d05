"""A link on the way to a bind mount's source: the place it leads to is held against the grants, a tree as a tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from opsexec.errors import CapabilityDenied
from opsexec.steps import ContainerRun, SandboxRun, Step
from tests.conftest import require
from tests.parts.container_engine import OURS, TINY, Ways

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
SYSTEM = {"/usr": "/usr/"}
LINKS = {"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
Bind = Callable[[str, dict[str, str]], Step]


def sandbox(kind: str, binds: dict[str, str]) -> Step:
    read_only = {**SYSTEM, **(binds if kind == "read_only" else {})}
    writable = binds if kind == "writable" else {}
    argv = ["/bin/sh", "-c", "cat /x/file; echo gone > /x/file"]
    return SandboxRun("binds", argv, read_only=read_only, writable=writable, links=LINKS)


def container(kind: str, binds: dict[str, str]) -> Step:
    return ContainerRun(
        name="binds",
        image=TINY,
        labels=OURS,
        argv=["/bin/sh", "-c", "cat /x/file; echo gone > /x/file"],
        read_only=binds if kind == "read_only" else {},
        writable=binds if kind == "writable" else {},
    )


@pytest.fixture(scope="module")
def ways(ways: Ways) -> Ways:
    require("bwrap", "needs bubblewrap (apt-get install bubblewrap)")
    return ways


@pytest.fixture
def scene(shared_dir: Path) -> Path:
    """`mine` may be written; `theirs` may at most be read; a link in `mine` leads to `theirs`."""
    for name in ("mine", "theirs/sub"):
        (shared_dir / name).mkdir(parents=True)
    (shared_dir / "theirs" / "sub" / "file").write_text("theirs\n")
    for each in (shared_dir / "theirs", shared_dir / "theirs" / "sub", shared_dir / "theirs" / "sub" / "file"):
        each.chmod(0o777)
    (shared_dir / "mine" / "way").symlink_to(shared_dir / "theirs")
    return shared_dir


@pytest.mark.parametrize("bind", [sandbox, container])
async def test_a_link_turns_no_right_to_read_into_one_to_write(bind: Bind, scene: Path, ways: Ways):
    held = (
        "sandbox.run:*", "container.run:*", "image.read:*", "fs.read:/**", f"fs.write:{scene}/mine/**",
    )  # fmt: skip
    async with ways.target("local").connect(*held) as ex:
        with pytest.raises(CapabilityDenied):
            await ex.run_streaming(bind("writable", {"/x": f"{scene}/mine/way/sub/"}))
        out = await ex.run_streaming(bind("read_only", {"/x": f"{scene}/mine/way/sub/"}))
        assert out.stdout == b"theirs\n"
    assert (scene / "theirs" / "sub" / "file").read_text() == "theirs\n"


@pytest.mark.parametrize("bind", [sandbox, container])
async def test_a_link_turns_no_grant_of_one_name_into_one_of_a_tree(bind: Bind, scene: Path, ways: Ways):
    held = (
        "sandbox.run:*", "container.run:*", "image.read:*", f"fs.read:{scene}/mine/**", "fs.read:/usr/**",
        f"fs.read:{scene}/theirs/sub",
    )  # fmt: skip
    async with ways.target("local").connect(*held) as ex:
        with pytest.raises(CapabilityDenied):
            await ex.run_streaming(bind("read_only", {"/x": f"{scene}/mine/way/sub/"}))
