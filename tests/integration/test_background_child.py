"""A child that lives on after its step, with the step's output still open."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from opsexec import Exec, Step
from tests.parts.process_tree import processes_with_argument
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio


async def test_a_child_that_holds_the_output_open_holds_up_neither_its_step_nor_the_next(target: Target) -> None:
    seconds = f"86399.{os.getpid()}"
    async with target.connect() as ex:
        try:
            async with asyncio.timeout(10):
                done = await ex.run(Step.shell("leave", f"sleep {seconds} & echo said"))
                assert done.text == "said\n"
                assert (await ex.run(Exec(["echo", "next"]))).text == "next\n"
        finally:
            for pid in processes_with_argument(seconds):
                os.kill(pid, signal.SIGKILL)
