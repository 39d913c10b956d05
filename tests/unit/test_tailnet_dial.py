"""The answer to a dial through tailscaled: what it is taken for, and that nobody is warned who gave it up."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from opsexec.errors import HostUnreachable
from opsexec.hosts.agent_tailnet import Dial

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 x\r\n\r\nand more"], ids=["nothing", "too much"])
async def test_a_dial_that_failed_raises_where_it_is_awaited_and_nowhere_else(said: bytes) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    for awaited in (True, False):
        dial = Dial()
        if said:
            dial.data_received(said)
        dial.connection_lost(None)
        if awaited:
            with pytest.raises(HostUnreachable):
                await dial.answered
        del dial
        gc.collect()
        await asyncio.sleep(0)
    assert complaints == []


async def test_a_dial_answers_with_the_first_line_of_the_head() -> None:
    dial = Dial()
    dial.data_received(b"HTTP/1.1 101 Switching")
    dial.data_received(b" Protocols\r\nUpgrade: ts-dial\r\n\r\n")
    assert await dial.answered == "HTTP/1.1 101 Switching Protocols"
    dial.connection_lost(None)
    assert dial.lost
