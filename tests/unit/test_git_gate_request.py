"""The request at the head of a git:// connection: what git sends is read, and nothing else is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bottle.sidecars.git_gate.packets import Body, packet
from bottle.sidecars.git_gate.repository import Refusal
from bottle.sidecars.git_gate.request import MAX_REQUEST, Request, parsed, read_request


@pytest.mark.parametrize(
    "line",
    [
        b"git-upload-pack /site\0host=bundle\0",
        b"git-upload-pack /site\0host=bundle:9418\0\0version=2\0",
        b"git-upload-pack /site\0host=[::1]:9418\0\0version=1\0",
        b"git-upload-pack /site\0\0version=0\0",
        b"git-upload-pack /site/\0",
        b"git-upload-pack /site\n",
    ],
)
def test_what_gits_send_is_read(line: bytes) -> None:
    assert parsed(line) == Request("git-upload-pack", "site")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "by their names"),
        (b"git-upload-pack site\0host=b\0", "by their names"),
        (b"git-upload-pack /../site\0host=b\0", "by their names"),
        (b"git-upload-pack /a/b\0host=b\0", "by their names"),
        (b"git-upload-pack /~root/x\0host=b\0", "by their names"),
        (b"git-upload-pack  /site\0host=b\0", "by their names"),
        (b"git-upload-pack --strict /site\0host=b\0", "by their names"),
        (b"git-upload-pack /site host=b\0", "by their names"),
        (b"git-upload-pack /" + b"a" * 200 + b"\0host=b\0", "by their names"),
        (b"git-upload-archive /site\0host=b\0", "alone"),
        (b"git-shell /site\0host=b\0", "alone"),
        (b"GIT-UPLOAD-PACK /site\0host=b\0", "by their names"),
        (b"git-upload-pack /site\0host=b", "no request"),
        (b"git-upload-pack /site\0host=$(id)\0", "parameters"),
        (b"git-upload-pack /site\0host=b\0host=c\0", "parameters"),
        (b"git-upload-pack /site\0host=b\0\0version=3\0", "parameters"),
        (b"git-upload-pack /site\0host=b\0\0version=2\0version=1\0", "parameters"),
        (b"git-upload-pack /site\0host=b\0\0version=2:GIT_DIR=/tmp\0", "parameters"),
        (b"git-upload-pack /site\0host=b\0\0GIT_EXEC_PATH=/tmp\0", "parameters"),
        (b"git-upload-pack /site\0host=b\0\0version=2\0\0", "parameters"),
    ],
)
def test_anything_else_is_refused(line: bytes, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        parsed(line)


@given(some.binary(max_size=200))
def test_no_line_but_a_request_is_read(line: bytes) -> None:
    with contextlib.suppress(Refusal):
        found = parsed(b"git-receive-pack /site\0" + line)
        assert found == Request("git-receive-pack", "site")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "data", [b"", b"00", b"0000", b"0001", b"0003", b"0004", b"-001", b"0x1f", b"GET ", b"ffff", b"0401", b"0020git"]
)
async def test_what_is_no_packet_line_of_that_size_is_refused(data: bytes) -> None:
    given_blocks = [data, b""]

    async def read() -> bytes:
        return given_blocks.pop(0) if given_blocks else b""

    with pytest.raises(Refusal):
        await read_request(Body(read))


@pytest.mark.anyio
async def test_a_request_may_come_in_pieces_and_is_read_alone() -> None:
    line = packet(b"git-receive-pack /site.git\0host=b\0")
    pieces = [bytes([each]) for each in line + b"0000"]

    async def read() -> bytes:
        return pieces.pop(0)

    assert await read_request(Body(read)) == Request("git-receive-pack", "site.git")
    assert b"".join(pieces) == b"0000"
    assert len(line) < MAX_REQUEST
