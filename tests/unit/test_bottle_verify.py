"""What `bottle verify` makes of what comes out of a bottle: what no battery says is no word, and steers nobody."""

from __future__ import annotations

import io
import json

import pytest

from bottle.commands import verify
from bottle.errors import LaunchFailed

LINE = {"id": "IP1", "tried": "an address, without the gate", "held": True, "came": "refused"}


def test_each_line_of_the_battery_is_an_attempt() -> None:
    said = f"a warning of Python's\n{json.dumps(LINE)}\n{json.dumps({**LINE, 'held': False})}\n".encode()
    assert [each.held for each in verify.attempts(said)] == [True, False]
    assert verify.expected()[:2] == [("IP2", "a route out"), ("IP1", "an address, without the gate")]
    assert len(verify.expected()) > 30


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "IP1"}',
        b"{",
        b'{"id": "\xff"}',
        json.dumps({**LINE, "held": "yes"}).encode(),
        json.dumps({**LINE, "more": 1}).encode(),
        b'{"id": ' + b"[" * 5000,
    ],
)
def test_what_no_battery_says_is_refused(line: bytes) -> None:
    with pytest.raises(LaunchFailed, match="isn't its own"):
        verify.attempts(json.dumps(LINE).encode() + b"\n" + line)


@pytest.mark.anyio
async def test_who_speaks_in_its_place_fills_no_memory() -> None:
    said = verify.Said()
    for _ in range(4):
        await said.write("stdout", b"x" * 65536)
    with pytest.raises(LaunchFailed, match="over 256 KiB"):
        await said.write("stdout", b"x")


@pytest.mark.anyio
async def test_a_person_is_told_how_far_it_has_come_in_a_line_that_goes() -> None:
    screen, all_there_are = io.StringIO(), len(verify.expected())
    said = verify.Said(screen)
    said.show()
    for block in (b"{", b"}\n{}\n"):
        await said.write("stdout", block)
    said.end()
    first, *_, last, gone, rest = screen.getvalue().split("\r")[1:]
    assert first == f"bottle: 0 of {all_there_are} attempts made"
    assert last == f"bottle: 2 of {all_there_are} attempts made"
    assert (gone, rest) == (" " * len(last), "")
    assert bytes(said.data) == b"{}\n{}\n"
