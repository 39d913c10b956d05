"""What a systemd manager says as it happens: on its own socket it tells whoever may connect of every change.

The socket is D-Bus without a bus: nobody to say hello to, nothing to subscribe to (systemd's `bus_foreach_bus` sends to
direct connections unconditionally). Root's manager has /run/systemd/private, a user's the same in XDG_RUNTIME_DIR.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator
from typing import NamedTuple

from agent.events.dbus_message import HEAD_BYTES, MAX_BYTES, SIGNAL, Message, message_bytes, read_message
from agent.events.trusted import require_trusted

SOCKET = "systemd/private"
CONNECT_S = 5.0
SUFFIX = ".service"
UNITS = "/org/freedesktop/systemd1/unit/"
UNIT = "org.freedesktop.systemd1.Unit"
MANAGER = "org.freedesktop.systemd1.Manager"


class UnitState(NamedTuple):
    """A unit's new state, like "active/running"."""

    unit: str
    state: str


async def words(runtime_dir: str | None) -> AsyncGenerator[UnitState | None, None]:
    """Yield the state of each service as it changes, until the manager closes; None where there is to be looked anew.

    The first is None, once the manager is heard. Raises OSError, EOFError and ValueError where it can't be, or no more.
    `runtime_dir`: as in Services.
    """
    path = f"{'/run' if runtime_dir is None else runtime_dir}/{SOCKET}"
    require_trusted(path)
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_BYTES)
    try:
        async with asyncio.timeout(CONNECT_S):
            writer.write(b"\0AUTH EXTERNAL %b\r\n" % str(os.geteuid()).encode().hex().encode())
            if not (await reader.readuntil(b"\r\n")).startswith(b"OK "):
                raise PermissionError(f"{path} doesn't take this user")
            writer.write(b"BEGIN\r\n")
        yield None
        while True:
            head = await reader.readexactly(HEAD_BYTES)
            rest = await reader.readexactly(message_bytes(head) - HEAD_BYTES)
            said = read_message(head + rest)
            if (found := state_of(said)) is not None:
                yield found
            elif changes_units(said):
                yield None
    finally:
        writer.close()


def state_of(said: Message) -> UnitState | None:
    """Return the service's state that a message tells; None for other messages."""
    if (said.kind, said.member, said.signature) != (SIGNAL, "PropertiesChanged", "sa{sv}as"):
        return None
    unit = unit_name(said.path.removeprefix(UNITS))
    if not unit.endswith(SUFFIX) or said.body[0] != UNIT:
        return None
    changed = dict(said.body[1])
    active, sub = changed.get("ActiveState"), changed.get("SubState")
    return UnitState(unit, f"{active}/{sub}") if isinstance(active, str) and isinstance(sub, str) else None


def changes_units(said: Message) -> bool:
    """True for a message that a unit was loaded or forgotten, or all of them were read again."""
    if said.kind != SIGNAL or said.interface != MANAGER:
        return False
    if said.member == "Reloading":
        return True
    return said.member in ("UnitNew", "UnitRemoved") and said.signature == "so" and said.body[0].endswith(SUFFIX)


def unit_name(label: str) -> str:
    """Return the unit of the last part of an object's path, in which `_2e` stands for a dot."""
    raw = re.sub(rb"_([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), label.encode())
    return raw.decode("utf-8", "replace")
