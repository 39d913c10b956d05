"""What a bottle says on its launcher's own output: whole and in order, and nobody who doesn't read holds up its end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bottle.outlet import Outlet

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.anyio
async def test_blocks_are_written_whole_and_in_order() -> None:
    out, into = os.pipe()
    os.set_blocking(into, False)
    outlet = Outlet(into)
    blocks = [bytes([number]) * 50_000 for number in range(20)]
    writing = asyncio.gather(*(outlet.write(block) for block in blocks))
    read = bytearray()
    while len(read) < 1_000_000:
        read += await asyncio.to_thread(os.read, out, 1 << 16)
    await writing
    assert bytes(read) == b"".join(blocks)
    for fd in (out, into):
        os.close(fd)


@pytest.mark.anyio
async def test_a_reader_that_has_gone_is_an_error() -> None:
    out, into = os.pipe()
    os.close(out)
    with pytest.raises(BrokenPipeError):
        await Outlet(into).write(b"x")
    os.close(into)


@pytest.mark.anyio
async def test_a_process_that_gets_no_more_threads_still_says_all_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    out, into = os.pipe()
    outlet = Outlet(into)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for block in (b"one ", b"two "):
            await asyncio.wait_for(outlet.write(block), 30)
    await outlet.write(b"three")
    os.close(into)
    assert os.read(out, 100) == b"one two three"
    os.close(out)


STUCK = """
import asyncio, sys
from bottle.outlet import Outlet
async def main():
    await asyncio.wait([asyncio.create_task(Outlet(1).write(b"x" * 1000000))], timeout=0.2)
asyncio.run(main())
print("over", file=sys.stderr)
"""


def test_a_process_ends_though_nobody_reads_what_it_wrote() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", STUCK], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert program.wait(60) == 0
    finally:
        program.kill()
        _, said = program.communicate()
    assert said == b"over\n"
