"""A program's input: given whole, streamed as it is taken, or refused by a program that doesn't want it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from opsexec import Exec, Shell, StepTimeout
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
BLOCK = bytes(range(256)) * 256
"""64 KiB."""


class Blocks:
    """Input that counts what was asked of it."""

    def __init__(self, count: int, *, broken_at: int | None = None) -> None:
        self.count = count
        self.broken_at = broken_at
        self.given = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.given < self.count:
            if self.given == self.broken_at:
                raise LookupError("the input broke")
            self.given += 1
            yield BLOCK


async def test_input_given_whole_arrives_whole_and_ends(target: Target) -> None:
    text = "ß\n" * 300_000
    async with target.connect() as ex:
        output = await ex.run(Exec(argv=("sha256sum",), stdin=text))
        assert output.text.split()[0] == hashlib.sha256(text.encode()).hexdigest()
        assert (await ex.run(Exec(argv=("cat",), stdin=""))).stdout == b""
        assert (await ex.run(Exec(argv=("cat",)))).stdout == b""


async def test_streamed_input_arrives_byte_for_byte_and_ends(target: Target) -> None:
    blocks = Blocks(160)
    async with target.connect() as ex:
        output = await ex.run(Exec(argv=("sha256sum",)), stdin=aiter(blocks))
        assert output.text.split()[0] == hashlib.sha256(BLOCK * 160).hexdigest()
        assert (await ex.run(Exec(argv=("cat",)), stdin=aiter(Blocks(0)))).stdout == b""


async def test_empty_blocks_do_not_end_the_input(target: Target) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for block in (b"", b"a", b"", b"b"):
            yield block

    async with target.connect() as ex:
        assert (await ex.run(Exec(argv=("cat",)), stdin=blocks())).stdout == b"ab"


async def test_what_the_program_says_can_decide_what_it_is_told_next(target: Target) -> None:
    """A dialogue: each line goes in only once the answer to the one before has come out."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    class Listener:
        async def write(self, stream: str, data: bytes) -> None:
            heard.put_nowait(data)

    async def lines() -> AsyncIterator[bytes]:
        for n in range(5):
            yield b"%d\n" % n
            assert await heard.get() == b"got %d\n" % n

    script = "while read -r n; do echo got $n; done"
    async with target.connect() as ex:
        output = await ex.run(Shell(action="t", script=script, timeout_s=20), Listener(), stdin=lines())
    assert output.stdout_bytes == 30


async def test_a_program_that_reads_nothing_holds_its_input_back(target: Target) -> None:
    """What waits for it stays bounded: the rest is never asked of the caller."""
    blocks = Blocks(2 * target.way_bytes // len(BLOCK))
    async with target.connect() as ex:
        with pytest.raises(StepTimeout):
            await ex.run(Exec(argv=("sleep", "60"), timeout_s=1), stdin=aiter(blocks))
        assert blocks.given * len(BLOCK) < target.way_bytes


async def test_a_program_that_ends_unread_ends_the_step(target: Target) -> None:
    blocks = Blocks(1000)
    async with target.connect() as ex:
        assert (await ex.run(Exec(argv=("true",)), stdin=aiter(blocks))).ok
        assert (await ex.run(Exec(argv=("true",), stdin="x" * 3_000_000))).ok
        output = await ex.run(Exec(argv=("head", "-c", "3")), stdin=aiter(Blocks(1000)))
        assert output.stdout == BLOCK[:3]


async def test_a_program_that_closes_its_input_runs_on(target: Target) -> None:
    async with target.connect() as ex:
        script = "exec <&-; sleep 0.3; echo done"
        output = await ex.run(Shell(action="t", script=script, timeout_s=20), stdin=aiter(Blocks(1000)))
        assert output.text == "done\n"
        whole = await ex.run(Shell(action="t", script=script, stdin="x" * 3_000_000, timeout_s=20))
        assert whole.text == "done\n"


async def test_input_that_breaks_ends_the_program_and_is_raised(target: Target) -> None:
    """A program that waits for the rest would wait for ever."""
    async with target.connect() as ex:
        with pytest.raises(LookupError, match="the input broke"):
            await asyncio.wait_for(ex.run(Exec(argv=("cat",)), stdin=aiter(Blocks(9, broken_at=2))), 10)
        assert (await ex.run(Exec(argv=("cat",), stdin="on"))).text == "on"


async def test_a_cancelled_step_lets_go_of_its_input(target: Target) -> None:
    closed = asyncio.Event()
    begun = asyncio.Event()

    async def blocks() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            begun.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with target.connect() as ex:
        task = asyncio.create_task(ex.run(Exec(argv=("cat",)), stdin=blocks()))
        await asyncio.wait_for(begun.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(closed.is_set, within_s=20, what="the input's end")
