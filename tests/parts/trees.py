"""Process trees of every shape that ending a step has to reach, each findable by a marker of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from dataclasses import dataclass

from opsexec import Shell, Tty
from opsexec.executor import RunOutput
from opsexec.host_executor import HostExecutor
from tests.parts.process_tree import processes_with_argument
from tests.parts.waiting import eventually

SOON_S = 1.0
"""After Ctrl-C, a deadline or a cancelled task, where the caller can still say so, a tree is gone."""
LATER_S = 3.0
"""After SIGKILL of the caller or a cut connection, which the host has to notice by itself."""

SHAPES = {
    "plain": "exec sleep {nap}",
    "grandchild": "sh -c 'sh -c \"sleep {nap}; true\"; true'; true",
    "setsid child": "setsid sleep {nap} & wait",
    "daemon": "setsid sh -c 'sleep {nap} & exit 0'; exec sleep {nap}",
    "left behind": "setsid sh -c 'sleep {nap} & exit 0' >/dev/null 2>&1 </dev/null",
    "stubborn": "trap '' TERM HUP INT QUIT; sleep {nap}; sleep {nap}",
}
"""Scripts, to be ended all but one: a step that ends well leaves its daemon behind on purpose.

A daemon is forked twice into a session of its own, so that its parent is the host's first process.
"""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Tree:
    """One tree. `nap`: a number of seconds that no other sleep on this machine is given: the marker."""

    shape: str
    nap: str

    @classmethod
    def new(cls, shape: str) -> Tree:
        """A tree with a marker of its own."""
        return cls(shape, f"{90 + os.getpid() % 9}.{os.getpid() % 100000:05}{next(_numbers):04}")

    @property
    def script(self) -> str:
        """What /bin/sh is to run."""
        return SHAPES[self.shape].format(nap=self.nap)

    def pids(self) -> list[int]:
        """The living sleeps of this tree."""
        return processes_with_argument(self.nap)


async def grow(ex: HostExecutor, tree: Tree, *, on_terminal: bool = False, timeout_s: float | None = None) -> RunOutput:
    """Run a tree to its end as a step, or on a terminal."""
    if not on_terminal:
        return await ex.run(Shell(action="tree", script=tree.script, timeout_s=timeout_s))
    terminal = await ex.open_tty(Tty(argv=("/bin/sh", "-c", tree.script), timeout_s=timeout_s))
    try:
        while await terminal.read():
            continue
        return await terminal.wait()
    finally:
        await terminal.aclose()


async def stand(trees: list[Tree]) -> None:
    """Wait until all of them run."""
    wanted = {"daemon": 2}
    for tree in trees:
        await eventually(
            lambda tree=tree: len(tree.pids()) >= wanted.get(tree.shape, 1),  # type: ignore[misc]  # bound early
            within_s=15,
            what=f"{tree.shape} to begin",
        )


async def gone(trees: list[Tree], within_s: float) -> None:
    """Wait until all of them are; raises AssertionError that names what is left, which is then killed."""
    try:
        await eventually(lambda: not any(tree.pids() for tree in trees), within_s=within_s, what="their end")
    except TimeoutError as error:
        left = [tree for tree in trees if tree.pids()]
        for tree in left:
            for pid in tree.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if left:
            shapes = ", ".join(tree.shape for tree in left)
            raise AssertionError(f"still running after {within_s:.2f} s: {shapes}") from error


async def grow_all(
    ex: HostExecutor, trees: list[Tree], *, on_terminal: bool, timeout_s: float | None = None
) -> list[RunOutput | BaseException]:
    """Run them all at once; returns how each ended."""
    steps = (grow(ex, tree, on_terminal=on_terminal, timeout_s=timeout_s) for tree in trees)
    return await asyncio.gather(*steps, return_exceptions=True)
