"""What goes over a launcher's own door, and how a program beside it comes there.

Frames both ways: a letter, 4 bytes of length, as many bytes. In: `?` what is asked (JSON), `i` stdin, empty at its end.
Out: `o` and `e` output, `x` how it ended, `f` why it wasn't done.
"""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottle.errors import HostUnready, NoSuchBottle
from opsexec.errors import OpsError, UsageError

if TYPE_CHECKING:
    from bottle.state import State

NAME = "control.sock"
MAX_FRAME = 1 << 20
HEAD = struct.Struct(">cI")


def frame(kind: bytes, data: bytes) -> bytes:
    """Return one frame."""
    return HEAD.pack(kind, len(data)) + data


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    """Return the next frame; None at the end. Raises UsageError for one that is too long."""
    try:
        kind, size = HEAD.unpack(await reader.readexactly(HEAD.size))
        if size > MAX_FRAME:
            raise UsageError(f"a frame of {size} bytes is over {MAX_FRAME}")
        return kind, await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def connect(directory: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to a bottle's launcher; raises NoSuchBottle where none listens."""
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NoSuchBottle(f"there is no bottle {directory.name}", hint="`bottle list --all` shows them") from error
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{fd}/{NAME}", limit=MAX_FRAME)
    except OSError as error:
        hint = "`bottle list` shows those that run; `bottle resume` starts one again"
        raise NoSuchBottle(f"{directory.name} isn't running", hint=hint) from error
    finally:
        os.close(fd)


async def connect_to(state: State, identity: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the launcher of a bottle; raises NoSuchBottle where none runs, OpsError where one will."""
    state.read(identity)
    try:
        return await connect(state.directory(identity))
    except NoSuchBottle:
        if not state.alive(identity):
            raise
        message = f"nothing can be run in {identity} now: it is being started, rebuilt or ended"
        raise OpsError(message, hint="try again in a moment") from None


def still_starting(identity: str) -> OpsError:
    """Return what is said of a bottle that isn't there yet: at its start, and while it is rebuilt."""
    return OpsError(f"{identity} is still being started", hint="try again in a moment")


def failure(told: dict[str, Any]) -> OpsError:
    """Return the error that a launcher tells."""
    kind = {2: UsageError, 3: HostUnready}.get(told.get("exit_code", 1), OpsError)
    return kind(str(told.get("message")), hint=told.get("hint"))
