"""Calls beside the event loop: their threads end with whoever asked, also those that were in a call by then."""

from __future__ import annotations

import asyncio
import threading

import pytest

from opsexec.hosts.aside import Aside
from tests.parts.waiting import eventually


def threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "opsexec-aside"}


@pytest.mark.anyio
async def test_a_thread_that_is_in_a_call_at_the_end_goes_after_it() -> None:
    before = threads()
    aside, free, begun = Aside(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        free.wait(20)

    waiting = asyncio.create_task(aside.do(call))
    await aside.do(lambda: begun.wait(20))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert len(threads() - before) == 2
    aside.close()
    await eventually(lambda: len(threads() - before) == 1, within_s=10, what="the idle one is gone")
    free.set()
    await eventually(lambda: threads() <= before, within_s=10, what="so is the other, after its call")


@pytest.mark.anyio
async def test_threads_are_used_again_and_after_a_close_there_are_new_ones() -> None:
    before = threads()
    aside = Aside()
    for _ in range(3):
        assert await aside.do(lambda: 1) == 1
    assert len(threads() - before) == 1
    aside.close()
    assert await aside.do(lambda: 2) == 2
    aside.close()
    await eventually(lambda: threads() <= before, within_s=10, what="all are gone")
