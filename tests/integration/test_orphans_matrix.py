"""No orphans: whatever ends a step, from wherever, its whole process tree is gone within the promised time."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from opsexec import ConnectionLost, StepTimeout
from tests.parts.delay_proxy import delay_proxy
from tests.parts.sshd import Sshd
from tests.parts.targets import Target
from tests.parts.tree_caller import argv
from tests.parts.trees import LATER_S, SHAPES, SOON_S, Tree, gone, grow_all, stand

pytestmark = pytest.mark.anyio

WAYS = {
    "local": ("local", False),
    "ssh as root": ("ssh_root", False),
    "ssh as a user": ("ssh_user", False),
    "pty": ("local", True),
    "pty over ssh as root": ("ssh_root", True),
    "pty over ssh as a user": ("ssh_user", True),
}


@dataclasses.dataclass(frozen=True)
class Way:
    """How the trees are started."""

    target: Target
    on_terminal: bool


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    name, on_terminal = WAYS[request.param]
    return Way(request.getfixturevalue(name), on_terminal)


@pytest.fixture(params=[name for name, (target, _) in WAYS.items() if target != "local"])
def far_way(request: pytest.FixtureRequest) -> Way:
    name, on_terminal = WAYS[request.param]
    return Way(request.getfixturevalue(name), on_terminal)


@pytest.fixture
def trees() -> list[Tree]:
    return [Tree.new(shape) for shape in SHAPES if shape != "left behind"]


@asynccontextmanager
async def caller(way: Way, trees: list[Tree]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that has grown the trees."""
    process = await asyncio.create_subprocess_exec(
        *argv(way.target, trees, on_terminal=way.on_terminal),
        cwd=Path(__file__).parents[2],
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await stand(trees)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_ctrl_c_ends_every_tree(way: Way, trees: list[Tree]) -> None:
    async with caller(way, trees) as process:
        process.send_signal(signal.SIGINT)
        await gone(trees, SOON_S)
        await asyncio.wait_for(process.wait(), 20)


async def test_sigkill_of_the_caller_ends_every_tree(way: Way, trees: list[Tree]) -> None:
    async with caller(way, trees) as process:
        process.kill()
        await gone(trees, LATER_S)


async def test_a_deadline_ends_every_tree(way: Way, trees: list[Tree]) -> None:
    async with way.target.connect() as ex:
        deadline_s = 1.5
        begun = time.monotonic()
        growing = asyncio.create_task(grow_all(ex, trees, on_terminal=way.on_terminal, timeout_s=deadline_s))
        await stand(trees)
        opened_s = time.monotonic() - begun
        ended = await asyncio.wait_for(growing, deadline_s + opened_s + SOON_S)
        assert [type(error) for error in ended] == [StepTimeout] * len(trees)
        await gone(trees, 0.0)


async def test_a_cancelled_task_leaves_no_tree(way: Way, trees: list[Tree]) -> None:
    async with way.target.connect() as ex:
        growing = asyncio.create_task(grow_all(ex, trees, on_terminal=way.on_terminal))
        await stand(trees)
        begun = time.monotonic()
        growing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await growing
        await gone(trees, begun + SOON_S - time.monotonic())


async def test_a_cut_connection_ends_every_tree_and_is_a_typed_error(
    far_way: Way, trees: list[Tree], sshd: Sshd
) -> None:
    with delay_proxy((sshd.listen[0], sshd.port)) as proxy:
        endpoint = sshd.endpoint_behind(proxy.address, proxy.port, user=far_way.target.login)
        through = dataclasses.replace(far_way.target, url=endpoint.url)
        async with through.connect() as ex:
            growing = asyncio.create_task(grow_all(ex, trees, on_terminal=far_way.on_terminal))
            await stand(trees)
            proxy.cut()
            begun = time.monotonic()
            ended = await asyncio.wait_for(growing, LATER_S)
            assert [type(error) for error in ended] == [ConnectionLost] * len(trees)
            await gone(trees, begun + LATER_S - time.monotonic())
