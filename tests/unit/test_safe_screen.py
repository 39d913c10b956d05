"""What is replayed or watched draws, and does nothing else to the terminal it is shown on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.safe_screen import SafeScreen

DRAWS = [
    b"plain \xc3\xa4 text\r\n\ttab\x08\x07",
    b"\x1b[1;38;5;196mred\x1b[0m \x1b[4:3mcurly\x1b[m",
    b"\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b[3A\x1b[5L\x1b[2M\x1b[4P\x1b[7@\x1b[2S\x1b[1;20r",
    b"\x1b[?1049h\x1b[?25l\x1b[?7h\x1b[?1049l",
    b"\x1b7\x1b8\x1bM\x1bD\x1bE\x1bH\x1bc\x1b(B\x1b)0\x0e\x0f\x1b#8\x1b[!p\x1b[2 q",
]
STEERS = [
    b"\x1b]52;c;cm0gLXJm\x07", b"\x1b]52;c;?\x1b\\", b"\x1b]0;title\x07", b"\x1b]8;;http://x/\x1b\\", b"\x1b]4;1;?\x07",
    b"\x1bP+q544e\x1b\\", b"\x1bP$qm\x1b\\", b"\x1b_apc\x1b\\", b"\x1b^pm\x1b\\", b"\x1bXsos\x1b\\",
    b"\x1b[c", b"\x1b[>c", b"\x1b[=c", b"\x1b[5n", b"\x1b[6n", b"\x1b[?6n", b"\x1b[21t", b"\x1b[8;1;1t", b"\x1b[x",
    b"\x1b[5i", b"\x1b[?4i", b"\x1b[>0q", b"\x1b[?2026$p", b"\x1b[1*y", b"\x1bZ", b"\x05", b"\x1b[2h", b"\x1b[>4;2m",
    b"\x1b[?1000h", b"\x1b[?1003;1006h", b"\x1b[?2004h", b"\x1b[?1004h", b"\x1b[?1h", b"\x1b=", b"\x1b[>1u", b"\x1b%@",
    b"\xc2\x9d52;c;x\xc2\x9c", b"\xc2\x90q\xc2\x9c", b"\xc2\x9b6n", b"\x1b[99999b",
    b"\x1b[1;1;1;1;1;1*z", b"\x7f", b"\x00", b"\x1b F",
]  # fmt: skip


@pytest.mark.parametrize("data", DRAWS)
def test_what_draws_passes(data: bytes) -> None:
    assert SafeScreen().pass_on(data) == data


@pytest.mark.parametrize("data", STEERS)
def test_what_steers_is_left_out_and_nothing_around_it(data: bytes) -> None:
    screen = SafeScreen()
    assert screen.pass_on(b"before" + data + b"after") == b"beforeafter"
    assert screen.left_out >= 1


@pytest.mark.parametrize("opens", [b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b^", b"\x1bX"])
def test_a_string_without_end_swallows_what_follows_and_no_memory(opens: bytes) -> None:
    screen = SafeScreen()
    assert screen.pass_on(opens + b"0;") == b""
    for _ in range(100):
        assert screen.pass_on(b"x" * 10_000) == b""
    assert len(screen._rest) <= 1
    assert screen.pass_on(b"\x1b\\shown") == b"shown"


_SAFE = re.compile(
    r"(?:[^\x00-\x1f\x7f-\x9f]|[\x07-\x0f]"
    r"|\x1b\[(?:[0-9;:]*[@ABCDEFGHIJKLMPSTXZ`abdefgmrsu]|\?[0-9;]+[hl]|!p|[0-6]? q)"
    r"|\x1b[78DEHMNOc]|\x1b[()*+\-./][\x30-\x7e]|\x1b#[3-68])*\Z"
)
_PIECES = st.lists(
    st.one_of(
        st.sampled_from([*DRAWS, *STEERS, b"\x1b", b"[", b"]", b"?", b";", b"0", b"h", b"\\", b"\xc2", b"\x9b", b"P"]),
        st.binary(max_size=6),
    ),
    max_size=12,
).map(b"".join)


@given(_PIECES)
def test_nothing_else_ever_comes_out(data: bytes) -> None:
    assert _SAFE.match(SafeScreen().pass_on(data).decode())


@given(_PIECES, st.data())
def test_how_the_stream_is_cut_makes_no_difference(data: bytes, cuts: st.DataObject) -> None:
    screen, shown, at = SafeScreen(), b"", 0
    while at < len(data):
        size = cuts.draw(st.integers(1, len(data) - at))
        shown += screen.pass_on(data[at : at + size])
        at += size
    assert shown == SafeScreen().pass_on(data)
