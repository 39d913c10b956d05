"""A service manager's own words: what of them is a service's state, and that nothing else breaks who listens."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.events.dbus_message import HEAD_BYTES, MAX_BYTES, Message, message_bytes, read_message
from agent.events.systemd_words import MANAGER, UNIT, UNITS, UnitState, changes_units, state_of, unit_name

PROPERTIES = "org.freedesktop.DBus.Properties"


def aligned(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode() + b"\0"


def variant(kind: str, value: bytes, at: int) -> bytes:
    """A variant that begins at this offset of its message."""
    head = bytes([len(kind)]) + kind.encode() + b"\0"
    size = {"s": 4, "o": 4, "g": 1, "t": 8, "u": 4, "b": 4}[kind[0]]
    return head + bytes(-(at + len(head)) % size) + value


def message(member: str, path: str, interface: str, signature: str, body: bytes) -> bytes:
    fields = b""
    for code, kind, value in ((1, "o", path), (2, "s", interface), (3, "s", member)):
        fields = aligned(fields, 8) + bytes([code])
        fields += variant(kind, text(value), 16 + len(fields))
    fields = aligned(fields, 8) + bytes([8])
    fields += variant("g", bytes([len(signature)]) + signature.encode() + b"\0", 16 + len(fields))
    return aligned(b"l\x04\x00\x01" + struct.pack("<III", len(body), 1, len(fields)) + fields, 8) + body


def changed(unit: str, interface: str, **states: str) -> bytes:
    """A PropertiesChanged of a unit, with a number and a flag beside the states."""
    body = aligned(text(interface), 4)
    entries = b""
    begin = len(body) + 4
    begin += -begin % 8
    for name, kind, value in (
        ("ActiveEnterTimestamp", "t", struct.pack("<Q", 7)),
        *((name, "s", text(state)) for name, state in states.items()),
        ("NeedDaemonReload", "b", struct.pack("<I", 0)),
    ):
        entries = aligned(entries, 8) + text(name)
        entries += variant(kind, value, begin + len(entries))
    body = aligned(body + struct.pack("<I", len(entries)), 8) + entries
    body = aligned(body, 4) + struct.pack("<I", len(text("Conditions"))) + text("Conditions")
    return message("PropertiesChanged", UNITS + unit, PROPERTIES, "sa{sv}as", body)


def test_a_changed_state_is_told_with_its_units_name() -> None:
    data = changed("told_2dx_2eservice", UNIT, ActiveState="failed", SubState="failed")
    assert message_bytes(data[:HEAD_BYTES]) == len(data)
    assert state_of(read_message(data)) == UnitState("told-x.service", "failed/failed")


def test_what_is_no_services_state_is_none() -> None:
    others = [
        changed("told_2etimer", UNIT, ActiveState="failed", SubState="failed"),
        changed("told_2eservice", "org.freedesktop.systemd1.Service", ActiveState="failed", SubState="failed"),
        changed("told_2eservice", UNIT, ActiveState="failed"),
        message("JobNew", "/org/freedesktop/systemd1", MANAGER, "s", text("x")),
    ]
    assert [state_of(read_message(each)) for each in others] == [None] * 4


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        (Message(4, "/", MANAGER, "UnitNew", "so", ("a.service", "/a")), True),
        (Message(4, "/", MANAGER, "UnitRemoved", "so", ("a.service", "/a")), True),
        (Message(4, "/", MANAGER, "UnitNew", "so", ("a.mount", "/a")), False),
        (Message(4, "/", MANAGER, "Reloading", "b", (False,)), True),
        (Message(4, "/", MANAGER, "UnitNew", "", ()), False),
        (Message(1, "/", MANAGER, "UnitNew", "so", ("a.service", "/a")), False),
        (Message(4, "/", "other", "UnitNew", "so", ("a.service", "/a")), False),
    ],
)
def test_units_that_come_and_go_are_a_reason_to_look(said: Message, is_so: bool) -> None:
    assert changes_units(said) is is_so


def test_names_are_those_that_were_escaped() -> None:
    assert unit_name("getty_40tty1_2eservice") == "getty@tty1.service"
    assert unit_name("a_5cx2db_2eservice") == "a\\x2db.service"
    assert unit_name("_c3_a9_2eservice") == "é.service"


def heard(data: bytes) -> Any:
    """What a listener does with bytes; the one error that it expects is ValueError."""
    try:
        size = message_bytes(data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"))
        assert HEAD_BYTES <= size <= MAX_BYTES
        said = read_message(data)
        return state_of(said), changes_units(said)
    except ValueError:
        return None


@given(st.binary(max_size=200))
def test_no_bytes_break_who_listens(data: bytes) -> None:
    heard(data)


@given(st.data())
def test_no_damaged_message_breaks_who_listens(data: st.DataObject) -> None:
    whole = bytearray(changed("told_2eservice", UNIT, ActiveState="active", SubState="running"))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    heard(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def test_a_message_that_is_too_large_is_none() -> None:
    with pytest.raises(ValueError, match="not a D-Bus message"):
        message_bytes(b"l\x04\x00\x01" + struct.pack("<III", MAX_BYTES, 1, 8))
