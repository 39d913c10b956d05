"""A launcher whose terminal is gone: its bottle is taken away as at Ctrl-C, and lives on where nohup was asked for."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from bottle import attended

IDENTITY = "worker-00000001"


@pytest.mark.anyio
@pytest.mark.parametrize("heard", [True, False])
async def test_a_terminal_that_is_gone_ends_a_bottle_with_care_but_not_under_nohup(heard: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL if heard else signal.SIG_IGN)
    asked = asyncio.Event()

    async def whole() -> int:
        stopped = attended._end_on_signals(IDENTITY, print)
        asked.set()
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            return attended.SIGNALS[stopped[0]]
        return 0

    try:
        bottle = asyncio.create_task(whole())
        await asyncio.wait_for(asked.wait(), 10)
        if heard:
            assert signal.getsignal(signal.SIGHUP) != signal.SIG_DFL, "the next line would end the tests"
        os.kill(os.getpid(), signal.SIGHUP)
        assert await bottle == (129 if heard else 0)
    finally:
        for number in attended.SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(signal.SIGHUP, before)
