"""What a host says on the caller's terminal beside other hosts: seen, never obeyed."""

from __future__ import annotations

import json
import os
import tty

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opsexec.cli.json_text import json_text
from opsexec.cli.streams import Output, Prefixed


async def said(block: bytes, *, terminal: bool) -> bytes:
    """What the caller sees when one of several hosts says this."""
    if terminal:
        reading, writing = os.openpty()
        tty.setraw(writing)
    else:
        reading, writing = os.pipe()
    try:
        sink = Prefixed("web1", Output(writing, writing))
        await sink.write("stdout", block)
        await sink.close()
        return os.read(reading, 1 << 16)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("block", "seen"),
    [
        (b"up\rweb2 | all is well\n", b"web1 | up\\x0dweb2 | all is well\n"),
        (b"\x1b[2J\x1b[H\n", b"web1 | \\x1b[2J\\x1b[H\n"),
        (b"\x1b]0;owned\x07\n", b"web1 | \\x1b]0;owned\\x07\n"),
        (b"\xc2\x9b2J\b\b\n", b"web1 | \\x9b2J\\x08\\x08\n"),
        (b"\x1b[8mhidden\nnext\n", b"web1 | \x1b[8mhidden\x1b[0m\nweb1 | next\n"),
        (b"a\r\nb\tc\n", b"web1 | a\nweb1 | b\tc\n"),
        ("über\n".encode(), "web1 | über\n".encode()),
        (b"no end\r", b"web1 | no end\\x0d\n"),
    ],
)
async def test_one_host_can_not_write_over_hide_or_make_up_the_lines_of_another(block, seen):
    assert await said(block, terminal=True) == seen


@pytest.mark.anyio
async def test_what_goes_into_a_pipe_is_whole(tmp_path):
    assert await said(b"\x1b[2Jx\ry\n", terminal=False) == b"web1 | \x1b[2Jx\ry\n"


@example("\u061c")
@given(st.recursive(st.text() | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_json_is_the_same_data_and_drives_no_terminal(data):
    text = json_text(data)
    assert json.loads(text) == data
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u061c\u202e\u2066" for c in text)
