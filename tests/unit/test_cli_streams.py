"""Bytes between hosts and the command's own stdout, stderr and stdin."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from opsexec.cli.streams import MAX_LINE, Output, Prefixed, piped_input
from opsexec.cli.unblocked import Unblocked

pytestmark = pytest.mark.anyio


async def test_lines_of_several_hosts_carry_their_name_and_never_mix(tmp_path) -> None:
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    output = Output(out, out)
    one, two = Prefixed("web1", output), Prefixed("web2", output)
    await one.write("stdout", b"a\nb")
    await two.write("stdout", b"\n\nx")
    await one.write("stderr", b"oops\n")
    await one.write("stdout", b"c\n")
    await two.close()
    await one.close()
    text = (tmp_path / "out").read_bytes()
    os.close(out)
    assert text == b"web1 | a\nweb2 | \nweb2 | \nweb1 | oops\nweb1 | bc\nweb2 | x\n"


async def test_a_line_without_end_is_passed_on_in_pieces(tmp_path) -> None:
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    sink = Prefixed("h", Output(out, out))
    for _ in range(5):
        await sink.write("stdout", b"x" * (MAX_LINE // 2))
    await sink.close()
    os.close(out)
    data = (tmp_path / "out").read_bytes()
    assert data.count(b"x") == 5 * (MAX_LINE // 2)
    assert data.count(b"h | ") == 2


async def test_a_reader_that_does_not_read_stops_the_writer_and_not_the_loop() -> None:
    reading, writing = os.pipe()
    output = Output(writing, writing)
    stuck = asyncio.ensure_future(output.write("stdout", b"x" * (1 << 20)))
    await asyncio.sleep(0)
    ticks = 0
    while ticks < 20:
        await asyncio.sleep(0.001)
        ticks += 1
    assert not stuck.done()
    drained = threading.Thread(target=_drain, args=(reading, 1 << 20))
    drained.start()
    await asyncio.wait_for(stuck, 10)
    drained.join(10)
    os.close(reading)
    os.close(writing)


def _drain(fd: int, size: int) -> None:
    while size > 0:
        size -= len(os.read(fd, 65536))


@pytest.mark.parametrize("size", [10, 1 << 20])
async def test_a_reader_that_went_away_is_an_error(size: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        await Output(writing, writing).write("stdout", b"x" * size)
    os.close(writing)


async def test_piped_input_comes_whole_and_ends() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one")
    blocks = piped_input(reading)
    assert blocks is not None
    assert await anext(blocks) == b"one"
    os.write(writing, b"two")
    os.close(writing)
    assert [block async for block in blocks] == [b"two"]
    os.close(reading)


async def test_a_terminal_dev_null_and_a_closed_stdin_are_no_piped_input() -> None:
    main, other = os.openpty()
    null = os.open(os.devnull, os.O_RDONLY)
    assert piped_input(other) is None
    assert piped_input(null) is None
    for fd in (main, other, null):
        os.close(fd)
    assert piped_input(null) is None


async def test_text_for_a_reader_that_does_not_read_never_stops_the_writer() -> None:
    reading, writing = os.pipe()
    out = Unblocked(writing)
    for _ in range(64):
        out.write("x" * (1 << 16))
    await out.drain(0.05)
    draining = threading.Thread(target=_drain, args=(reading, 64 << 16))
    draining.start()
    await asyncio.wait_for(out.drain(), 10)
    draining.join(10)
    os.close(reading)
    out.write("more")
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(out.drain(), 10)
    with pytest.raises(BrokenPipeError):
        out.write("and more")
    os.close(writing)
