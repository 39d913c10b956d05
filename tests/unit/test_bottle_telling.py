"""What a launcher tells: in order, not waiting for a reader, and at the end waited for no longer than that takes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottle.telling import Telling

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    yield out, into
    for fd in (out, into):
        os.close(fd)


def test_lines_wait_for_their_reader_and_whoever_tells_them_doesn_t(pipe: tuple[int, int]) -> None:
    out, into = pipe
    tell = Telling(into)
    lines = [f"{number} {'x' * 500}" for number in range(100)]
    for line in lines:
        tell(line)
    assert not tell.wait(0.01)
    with open(out, closefd=False) as reader:
        assert [reader.readline() for _ in lines] == [f"bottle: {line}\n" for line in lines]
    assert tell.wait(60)
    tell("\ud800")
    assert tell.wait(60)
    assert os.read(out, 100) == b"bottle: \\ud800\n"


def test_a_reader_that_has_gone_ends_nobody() -> None:
    out, into = os.pipe()
    os.close(out)
    tell = Telling(into)
    tell("nobody reads this")
    tell("nor this")
    assert tell.wait(60)
    os.close(into)


STUCK = """
import sys
from bottle import telling
telling.LAST_WAIT_S = 0.05
with telling.telling() as tell:
    tell("x" * 1000000)
print("over")
"""


def test_a_process_ends_though_nobody_reads_what_it_told() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", STUCK], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert program.wait(60) == 0
    finally:
        program.kill()
        said, _ = program.communicate()
    assert said == b"over\n"
