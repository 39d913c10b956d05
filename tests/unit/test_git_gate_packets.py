"""The commands at the head of a push: what git sends is read up to its flush, and nothing else is taken."""

from __future__ import annotations

import pytest

from bottle.sidecars.git_gate import packets
from bottle.sidecars.git_gate.packets import FLUSH, Body, PushHead, UnfitPush, packet, read_head
from bottle.sidecars.git_gate.repository import Refusal

OLD, NEW = b"0" * 40, b"1" * 40
ASKED = b"\0 report-status side-band-64k object-format=sha1 agent=git/2"


def command(ref: bytes, asked: bytes = b"") -> bytes:
    return packet(OLD + b" " + NEW + b" " + ref + asked)


async def head_of(data: bytes, most: int = 2) -> tuple[PushHead, bytes]:
    blocks = [data]

    async def read() -> bytes:
        return blocks.pop() if blocks else b""

    body = Body(read)
    return await read_head(body, most), await body.some()


@pytest.mark.anyio
async def test_the_commands_of_a_push_are_read_and_its_pack_is_left() -> None:
    commands = command(b"refs/heads/a", ASKED) + command(b"refs/heads/b\n") + FLUSH
    head, left = await head_of(commands + b"PACK")
    assert (head.raw, left) == (commands, b"PACK")
    assert head.refs == (b"refs/heads/a", b"refs/heads/b")
    assert head.updates == tuple(f"{'0' * 40} {'1' * 40} {ref.decode()}" for ref in head.refs)
    assert b"side-band-64k" in head.features


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"0004", "no push"),
        (b"0001", "no push"),
        (b"-00f", "no push"),
        (b"fff1" + b"x" * 65517, "no push"),
        (command(b"refs/heads/a", ASKED) + command(b"refs/heads/b", ASKED), "no push"),
        (command(b"refs/heads/a", b"\0 push-options"), "push options"),
        (command(b"refs/heads/a", b"\0 filter"), "a feature"),
        (command(b"refs/heads/a", b"\0 object-format=sha256"), "sha1"),
        (packet(b"push-cert\0 report-status"), "signed"),
        (packet(b"shallow " + NEW), "shallow"),
        (command(b"heads/a", ASKED), "a command"),
        (command(b"refs/heads/../a", ASKED), "a command"),
        (command(b"refs/heads/a b", ASKED), "a command"),
        (command(b"refs/heads/-a", ASKED), "a command"),
        (command(b"refs/heads/a", ASKED) + command(b"refs/b") + command(b"refs/c"), "2 refs at most"),
    ],
)
async def test_what_is_no_push_or_asks_for_more_is_refused(sent: bytes, why: str) -> None:
    with pytest.raises(UnfitPush, match=why):
        await head_of(sent + FLUSH)


@pytest.mark.anyio
async def test_commands_have_a_bound_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = command(b"refs/heads/a", ASKED)
    monkeypatch.setattr(packets, "MAX_HEAD", len(sent))
    assert (await head_of(sent + FLUSH))[0].refs == (b"refs/heads/a",)
    monkeypatch.setattr(packets, "MAX_HEAD", len(sent) - 1)
    with pytest.raises(UnfitPush):
        await head_of(sent + FLUSH)


@pytest.mark.anyio
async def test_commands_that_break_off_are_refused() -> None:
    with pytest.raises(Refusal, match="in the middle"):
        await head_of(command(b"refs/heads/a", ASKED)[:-1])
