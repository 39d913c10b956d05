"""How long output that a child still holds open is waited for once its parent has ended."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from opsexec.far.drain import LIMIT_S, SILENCE_S, Drain, waiting
from tests.parts.waiting import eventually_now


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_silence_ends_the_wait(pipe: tuple[int, int]) -> None:
    drain = Drain([pipe[0]])
    assert 0 < drain.wait([pipe[0]]) <= SILENCE_S
    eventually_now(lambda: not drain.wait([pipe[0]]), within_s=20, what="the end of the wait")


def test_what_stood_in_the_pipe_is_waited_for_without_limit(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x" * 100)
    assert waiting(pipe[0]) == 100
    drain = Drain([pipe[0]])
    drain.heard(pipe[0], 99)
    drain._quiet_at = drain._end_at = 0.0  # long ago
    assert drain.wait([pipe[0]]) > 0
    drain.heard(pipe[0], 1)
    drain._end_at = 0.0
    assert drain.wait([pipe[0]]) == 0


def test_a_pipe_that_was_closed_owes_nothing(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    drain = Drain([pipe[0]])
    drain._quiet_at = 0.0
    assert drain.wait([pipe[0]]) > 0
    assert drain.wait([]) == 0


def test_a_child_that_goes_on_talking_is_heard_for_a_while(pipe: tuple[int, int]) -> None:
    drain = Drain([pipe[0]])
    for _ in range(3):
        drain.heard(pipe[0], 10)
        assert 0 < drain.wait([pipe[0]]) <= SILENCE_S
    drain._end_at -= LIMIT_S
    drain.heard(pipe[0], 10)
    assert drain.wait([pipe[0]]) == 0


def test_what_is_no_pipe_owes_nothing() -> None:
    with open("/dev/null", "rb") as null:
        assert waiting(null.fileno()) == 0
