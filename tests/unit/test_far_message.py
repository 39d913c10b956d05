"""Messages cross as they are, and any other bytes are refused in one way."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opsexec.far.launch import Launch
from opsexec.far.message import MAX_ITEMS, pack_layers, pack_message, unpack_layers, unpack_message

ITEMS = st.lists(st.binary(max_size=200), max_size=30)
TEXT = st.text(
    alphabet=st.one_of(st.characters(codec="utf-8"), st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))
)
"""Any text that names bytes: what is no UTF-8 stands as a lone low surrogate (PEP 383)."""


@given(ITEMS)
def test_a_message_crosses_as_it_is(items: list[bytes]) -> None:
    assert unpack_message(pack_message(items)) == items


@given(st.binary(max_size=300))
@example(b"\0\0\0\1\0\0\0\1")
@example(b"\xff\xff\xff\xff")
def test_any_bytes_are_one_message_or_a_value_error(data: bytes) -> None:
    try:
        items = unpack_message(data)
    except ValueError:
        return
    assert pack_message(items) == data


@given(ITEMS, st.data())
def test_a_message_cut_short_or_with_more_behind_is_refused(items: list[bytes], data: st.DataObject) -> None:
    whole = pack_message(items)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"\0"):
        with pytest.raises(ValueError, match="message"):
            unpack_message(wrong)


def test_a_count_beyond_the_limit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="too many"):
        unpack_message(struct.pack(">I", MAX_ITEMS + 1))


@given(st.lists(st.lists(TEXT, max_size=4), max_size=4))
def test_grants_cross_layer_by_layer(layers: list[list[str]]) -> None:
    assert unpack_layers(pack_layers(layers)) == layers


WORDS = st.lists(TEXT.filter(lambda text: "\0" not in text), max_size=6)


@given(
    run=st.text("0123456789abcdef", min_size=1, max_size=16),
    programs=WORDS,
    admitted=WORDS,
    argv=WORDS,
    env=st.dictionaries(TEXT, TEXT, max_size=5),
    cwd=TEXT,
    stdin=st.binary(max_size=100),
    streams=st.booleans(),
    size=st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
)
def test_a_launch_crosses_as_it_is(
    run: str,
    programs: list[str],
    admitted: list[str],
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    stdin: bytes,
    streams: bool,
    size: tuple[int, int],
) -> None:
    launch = Launch(run, programs, admitted, argv, env, cwd, stdin, streams, "xterm", *size)
    crossed = Launch.parse(launch.pack())
    assert {name: getattr(crossed, name) for name in Launch.__slots__} == {
        name: getattr(launch, name) for name in Launch.__slots__
    }


@given(st.binary(max_size=300))
def test_any_bytes_are_a_launch_or_a_value_error(data: bytes) -> None:
    try:
        Launch.parse(data)
    except ValueError:
        return
    assert len(unpack_message(data)) == 11
