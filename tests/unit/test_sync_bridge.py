"""The bridge carries every byte, at the pace of the slower side, and ends when either side does."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.errors import OpsError, ProtocolError
from opsexec.far.copy_request import CopyRequest
from opsexec.far.message import pack_message
from opsexec.hosts.agent_copy import AgentWire
from opsexec.hosts.bridge import BLOCK, MAX_NOISE, Bridge
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
NONCE = "nonce\n"


class FakeWire:
    """Remembers what it is asked; the far side is the test."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.eof = self.closed = self.paused = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def write_eof(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        return


def answer(*items: bytes) -> bytes:
    data = pack_message(list(items))
    return len(data).to_bytes(4, "big") + data


def bridge() -> Bridge:
    return Bridge(NONCE, "web1", lambda status, said: OpsError(f"{status}: {said}", host="web1"))


class Joined:
    """A bridge joined to two pipes; `input`: what the process reads, `output`: what it writes."""

    def __init__(self) -> None:
        self.wire = FakeWire()
        self.bridge = bridge()
        self.input, into = os.pipe()
        out, self.output = os.pipe()
        os.set_blocking(self.input, False)
        os.set_blocking(self.output, False)
        self.bridge.data_received(NONCE.encode() + answer(b"ok"))
        self.bridge.join(self.wire, out, into)

    def read(self) -> bytes | None:
        try:
            return os.read(self.input, 1 << 20)
        except BlockingIOError:
            return None

    def close(self) -> None:
        self.bridge.close()
        os.close(self.input)
        os.close(self.output)


@given(st.lists(st.integers(1, 9), max_size=12), st.binary(max_size=40))
def test_an_answer_split_anywhere_after_any_noise_is_the_same(cuts: list[int], noise: bytes) -> None:
    async def check() -> None:
        each = bridge()
        stream = noise + b"\nnonc" + NONCE.encode() + answer(b"ok", b"made") + b"rest"
        at = 0
        for cut in cuts:
            each.data_received(stream[at : at + cut])
            at += cut
        each.data_received(stream[at:])
        assert each.answer.result() == [b"ok", b"made"]

    asyncio.run(check())


async def test_endless_noise_is_not_kept() -> None:
    each = bridge()
    for _ in range(100):
        each.data_received(b"x" * 65536)
    assert len(each._buffer) <= MAX_NOISE
    each.data_received(NONCE.encode() + answer(b"ok"))
    assert await each.answer == [b"ok"]


@pytest.mark.parametrize("bad", [b"\xff\xff\xff\xff....", b"\0\0\0\1\0", b"\0\0\0\4\0\0\0\7"])
async def test_an_answer_that_is_none_is_a_protocol_error(bad: bytes) -> None:
    each = bridge()
    each.data_received(NONCE.encode() + bad)
    with pytest.raises(ProtocolError):
        await asyncio.wait_for(each.answer, 20)


async def test_a_wire_that_ends_before_the_answer_says_why() -> None:
    each = bridge()
    each.complain(b"warning\nsudo: a password is required\n")
    each.lost(1)
    with pytest.raises(OpsError, match="1: sudo: a password is required"):
        await each.answer
    assert await each.closed == 1


async def test_what_came_before_the_join_is_not_lost() -> None:
    joined = Joined()
    joined.close()
    other = bridge()
    reading, into = os.pipe()
    out, output = os.pipe()
    other.data_received(NONCE.encode() + answer(b"ok") + b"early")
    other.lost(0)
    other.join(FakeWire(), out, into)
    assert os.read(reading, 100) == b"early"
    assert os.read(reading, 100) == b""
    with pytest.raises(BrokenPipeError):
        os.write(output, b"x")
    for fd in (reading, output):
        os.close(fd)


async def test_a_process_that_reads_slowly_holds_the_wire_back_and_loses_nothing() -> None:
    joined = Joined()
    sent = os.urandom(3 * BLOCK)
    joined.bridge.data_received(sent)
    assert joined.wire.paused
    got = b""
    while len(got) < len(sent):
        await asyncio.sleep(0)
        got += joined.read() or b""
    assert got == sent
    await eventually(lambda: not joined.wire.paused, within_s=20, what="the wire goes on")
    joined.bridge.data_received(b"end")
    joined.bridge.lost(0)
    assert await eventually(joined.read, within_s=20, what="the last bytes") == b"end"
    assert joined.read() == b""
    joined.close()


async def test_a_wire_that_takes_nothing_holds_the_process_back() -> None:
    joined = Joined()
    joined.bridge.pause()
    os.write(joined.output, b"x" * 60000)
    for _ in range(20):
        await asyncio.sleep(0)
    assert joined.wire.sent == b""
    joined.bridge.resume()
    await eventually(lambda: len(joined.wire.sent) == 60000, within_s=20, what="all of it sent")
    joined.close()


async def test_the_end_of_the_process_is_the_end_of_what_is_sent() -> None:
    joined = Joined()
    os.close(joined.output)
    await eventually(lambda: joined.wire.eof, within_s=20, what="end of input sent")
    joined.output = os.open(os.devnull, os.O_RDONLY)
    joined.close()
    assert joined.wire.closed


async def test_a_process_that_is_gone_takes_nothing_and_the_wire_goes_on_to_its_status() -> None:
    joined = Joined()
    os.close(joined.input)
    joined.bridge.data_received(b"x" * BLOCK * 4)
    joined.bridge.data_received(b"x")
    assert not joined.wire.paused
    joined.bridge.lost(12)
    assert await joined.bridge.closed == 12
    joined.input = os.open(os.devnull, os.O_RDONLY)
    joined.close()


async def test_a_lost_wire_ends_both_of_the_process_streams() -> None:
    joined = Joined()
    joined.bridge.lost(None)
    assert joined.read() == b""
    with pytest.raises(BrokenPipeError):
        os.write(joined.output, b"x")
    assert await joined.bridge.closed is None
    joined.close()


class FakeExchange(AgentWire):
    """A wire whose agent takes its time to end what it does, once it is told to."""

    def __init__(self, told: asyncio.Event, let: asyncio.Event) -> None:
        super().__init__("web1", bridge(), lambda asked: b"", AsyncExitStack(), cast(Any, None), None)
        self.told, self.let, self.through = told, let, False

    async def _exchange(self, request: bytes) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.told.set()
            await self.let.wait()
            self.through = True


async def test_closing_a_wire_again_does_not_cut_short_how_the_agent_ends_it() -> None:
    told, let = asyncio.Event(), asyncio.Event()
    wire = FakeExchange(told, let)
    wire.write(CopyRequest("run", "sync.push", "/srv", [["sync.push:/srv"]], []).pack())
    await asyncio.sleep(0)
    wire.close()
    await told.wait()
    wire.close()
    waiting = asyncio.create_task(wire.wait_closed())
    await asyncio.sleep(0)
    wire.close()
    let.set()
    await asyncio.wait_for(waiting, 30)
    assert wire.through
