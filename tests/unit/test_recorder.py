"""What passes a Recorder is counted, hashed and kept in part, and its sink sets the pace."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from collections.abc import Sequence

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from opsexec.executor import TAIL_BYTES, Stream
from opsexec.recorder import HIGH_WATER, MANY, Recorder
from opsexec.sinks import MAX_LINE, LineSink

pytestmark = pytest.mark.anyio
SIZES = st.one_of(st.integers(1, 200), st.sampled_from([TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 3 * TAIL_BYTES]))
BLOCKS = st.lists(st.tuples(st.integers(0, 1), SIZES, st.integers(0, 255)), max_size=30)


def joined(blocks: Sequence[tuple[int, bytes]], stream: int) -> bytes:
    return b"".join(data for at, data in blocks if at == stream)


class SlowSink:
    """Takes one block each time `step` is called."""

    def __init__(self) -> None:
        self.taken: list[tuple[Stream, bytes]] = []
        self.steps = asyncio.Semaphore(0)

    async def write(self, stream: Stream, data: bytes) -> None:
        await self.steps.acquire()
        self.taken.append((stream, data))

    async def step(self) -> None:
        self.steps.release()
        for _ in range(3):
            await asyncio.sleep(0)


@given(BLOCKS)
def test_counts_tails_and_digest_are_those_of_the_whole(drawn: list[tuple[int, int, int]]) -> None:
    blocks = [(stream, bytes([fill]) * size) for stream, size, fill in drawn]
    recorder = Recorder()
    for stream, data in blocks:
        assert recorder.feed(stream, data)
    whole = joined(blocks, 0), joined(blocks, 1)
    assert recorder.counts == [len(whole[0]), len(whole[1])]
    assert [recorder.tail(0), recorder.tail(1)] == [stream[-TAIL_BYTES:] for stream in whole]
    by = hashlib.sha256 if len(whole[0]) <= TAIL_BYTES else blake3
    assert recorder.digest == f"{by().name}:{by(whole[0]).hexdigest()}"
    assert recorder.truncated == (max(map(len, whole)) > TAIL_BYTES)


@given(BLOCKS)
def test_a_sink_gets_every_block_in_order(drawn: list[tuple[int, int, int]]) -> None:
    blocks = [(stream, bytes([fill]) * size) for stream, size, fill in drawn]
    taken: list[tuple[int, bytes]] = []

    class Sink:
        async def write(self, stream: Stream, data: bytes) -> None:
            taken.append((("stdout", "stderr").index(stream), data))

    async def run() -> None:
        recorder = Recorder(Sink())
        for stream, data in blocks:
            recorder.feed(stream, data)
            if len(data) % 2:
                await asyncio.sleep(0)
        await recorder.finish()
        assert not recorder.behind

    asyncio.run(run())
    assert taken == blocks


@given(BLOCKS, st.integers(1, 5 * TAIL_BYTES))
def test_the_limit_is_passed_with_the_first_byte_beyond_it(drawn: list[tuple[int, int, int]], limit: int) -> None:
    recorder = Recorder(limit_bytes=limit)
    total = 0
    for stream, size, fill in drawn:
        recorder.feed(stream, bytes([fill]) * size)
        total += size
        assert recorder.over_limit == (total > limit)


async def test_a_sink_that_is_behind_says_stop_and_then_go_once() -> None:
    sink = SlowSink()
    recorder = Recorder(sink)
    going: list[int] = []
    recorder.on_drain = lambda: going.append(len(sink.taken))
    block = bytes(HIGH_WATER // 4)
    assert [recorder.feed(0, block) for _ in range(6)] == [True, True, True, False, False, False]
    for wanted in ([], [], [3], [3], [3], [3]):
        await sink.step()
        assert going == wanted
    await recorder.finish()


async def test_tiny_blocks_that_wait_take_little_more_than_their_bytes_and_keep_their_order() -> None:
    """A window of output in blocks of one byte is millions of them."""
    sink = SlowSink()
    recorder = Recorder(sink)
    blocks = [(at % 3 % 2, b"%c%c" % (at & 127, at >> 7 & 127)) for at in range(100 * MANY)]
    tracemalloc.start()
    try:
        for stream, data in blocks:
            recorder.feed(stream, bytes(bytearray(data)))
        assert tracemalloc.get_traced_memory()[0] < 16 * sum(len(data) for _, data in blocks)
    finally:
        tracemalloc.stop()
    for _ in blocks:
        sink.steps.release()
    await recorder.finish()
    assert [(int(stream == "stderr"), data) for stream, data in sink.taken] == blocks


async def test_a_sink_that_raises_is_asked_no_more_and_its_error_is_raised() -> None:
    class Broken:
        calls = 0

        async def write(self, stream: Stream, data: bytes) -> None:
            self.calls += 1
            raise LookupError("no room")

    sink, failed = Broken(), asyncio.Event()
    recorder = Recorder(sink)
    recorder.on_failure = failed.set
    recorder.feed(0, b"a")
    recorder.feed(0, b"b")
    await asyncio.wait_for(failed.wait(), 20)
    assert recorder.feed(0, b"c")
    with pytest.raises(LookupError, match="no room"):
        await recorder.finish()
    assert sink.calls == 1
    assert recorder.counts == [3, 0]


async def test_an_abandoned_recorder_lets_its_sink_go() -> None:
    sink = SlowSink()
    recorder = Recorder(sink)
    recorder.feed(0, b"a")
    recorder.feed(0, b"b")
    await asyncio.sleep(0)
    before = asyncio.all_tasks()
    recorder.abandon()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == len(before) - 1
    assert sink.taken == []


async def test_finishing_waits_and_can_be_cancelled() -> None:
    sink = SlowSink()
    recorder = Recorder(sink)
    recorder.feed(0, b"a")
    finishing = asyncio.create_task(recorder.finish())
    await asyncio.sleep(0)
    finishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finishing
    await asyncio.sleep(0)
    assert not recorder.behind


async def lines_of(blocks: Sequence[tuple[Stream, bytes]]) -> dict[str, list[bytes]]:
    heard: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    sink = LineSink(lambda stream, line: heard[stream].append(line))
    for stream, data in blocks:
        await sink.write(stream, data)
    await sink.close()
    await sink.close()
    return heard


STREAMS = st.sampled_from(["stdout", "stderr"])
TALK = st.text("ab\n\r\0", max_size=12).map(str.encode)


@given(st.lists(st.tuples(STREAMS, TALK), max_size=20))
def test_lines_are_what_stands_between_newlines_however_they_come(blocks: list[tuple[Stream, bytes]]) -> None:
    heard = asyncio.run(lines_of(blocks))
    for stream in heard:
        whole = b"".join(data for at, data in blocks if at == stream)
        wanted = whole.split(b"\n")
        if not wanted[-1]:
            wanted.pop()
        assert heard[stream] == wanted


@given(st.lists(st.integers(1, MAX_LINE), min_size=1, max_size=6), st.booleans())
def test_a_line_beyond_the_limit_comes_in_pieces_and_ends_once(sizes: list[int], ended: bool) -> None:
    blocks: list[tuple[Stream, bytes]] = [("stdout", b"x" * size) for size in sizes]
    after: list[tuple[Stream, bytes]] = [("stdout", b"\n"), ("stdout", b"next\n")] if ended else []
    heard = asyncio.run(lines_of([*blocks, *after]))["stdout"]
    pieces = heard[:-1] if ended else heard
    assert b"".join(pieces) == b"x" * sum(sizes)
    assert all(pieces)
    assert max(map(len, pieces)) <= 2 * MAX_LINE
    if ended:
        assert heard[-1] == b"next"


async def test_an_async_listener_is_awaited() -> None:
    heard = []

    async def listen(stream: Stream, line: bytes) -> None:
        await asyncio.sleep(0)
        heard.append((stream, line))

    sink = LineSink(listen)
    await sink.write("stderr", b"a\nb\nc")
    assert heard == [("stderr", b"a"), ("stderr", b"b")]
    await sink.close()
    assert heard[-1] == ("stderr", b"c")
