"""The caller's terminal: what is switched back, and the keys that leave it."""

from __future__ import annotations

import os
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.cli.screen import Escape, Modes, raw_mode, size_of
from opsexec.steps.tty import Tty

VIM = b"\x1b[?1049h\x1b[?1h\x1b[?2004h\x1b[?25l text \x1b[?1000;1006h"


@pytest.mark.parametrize(
    ("columns", "rows", "told"),
    [(132, 50, (132, 50)), (0, 0, (80, 24)), (65535, 10_000, (9999, 9999)), (9999, 1, (9999, 1))],
)
def test_a_terminal_has_no_more_columns_and_rows_than_a_step_and_a_recording_take(columns, rows, told) -> None:
    leader, follower = os.openpty()
    try:
        termios.tcsetwinsize(follower, (rows, columns))
        assert size_of(follower) == told
        Tty(argv=["/bin/sh"], columns=told[0], rows=told[1])
    finally:
        os.close(leader)
        os.close(follower)


def test_what_a_program_switched_on_and_left_is_switched_off() -> None:
    modes = Modes()
    modes.watch(VIM)
    assert modes.undo() == (b"\x1b[?1006l\x1b[?1000l\x1b[?2004l\x1b[?1l\x1b[?1049l\x1b[?25h\x1b[0m")
    assert modes.undo() == b""


def test_what_a_program_put_back_itself_is_left_alone() -> None:
    modes = Modes()
    modes.watch(VIM + b"\x1b[?1006;1000l\x1b[?2004l\x1b[?1l\x1b[?1049l\x1b[?25h")
    assert modes.undo() == b""


@given(st.data())
def test_sequences_are_seen_wherever_blocks_are_cut(data) -> None:
    whole, cut = Modes(), Modes()
    whole.watch(VIM)
    at = 0
    while at < len(VIM):
        size = data.draw(st.integers(1, len(VIM) - at))
        cut.watch(VIM[at : at + size])
        at += size
    assert cut.undo() == whole.undo()


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ([b"ls\r"], b"ls\r"),
        ([b"~/bin/x\r"], b"~/bin/x\r"),
        ([b"~~.\r"], b"~.\r"),
        ([b"a~.\r"], b"a~.\r"),
        ([b"\r~", b"x"], b"\r~x"),
        ([b"~."], None),
        ([b"ls\r", b"~", b"."], None),
    ],
)
def test_tilde_dot_at_the_beginning_of_a_line_leaves(typed: list[bytes], sent: bytes | None) -> None:
    escape = Escape()
    passed = [escape.passes(keys) for keys in typed]
    if sent is None:
        assert passed[-1] is None
    else:
        assert b"".join(each for each in passed if each is not None) == sent
        assert None not in passed


def test_the_terminals_settings_come_back_after_an_error() -> None:
    main, other = os.openpty()
    before = termios.tcgetattr(other)
    with pytest.raises(ZeroDivisionError):
        _fail_in_raw_mode(other, before)
    assert termios.tcgetattr(other) == before
    os.close(main)
    os.close(other)


def _fail_in_raw_mode(fd: int, before: list[object]) -> None:
    with raw_mode(fd):
        assert termios.tcgetattr(fd) != before
        raise ZeroDivisionError
