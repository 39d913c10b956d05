"""What became of a program, for `--json`: the end of what it said, and how it ended."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bottle.commands.row import row
from bottle.commands.told import print_json
from opsexec.errors import OpsError
from opsexec.executor import Stream

if TYPE_CHECKING:
    from bottle.state import State

KEPT_BYTES = 1 << 20


class Outcome:
    """A LogSink that keeps the last KEPT_BYTES of each stream. `exit_code`, `signal`: how it ended, once it has."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.signal: str | None = None
        self._tails: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._counts: dict[Stream, int] = {"stdout": 0, "stderr": 0}

    async def write(self, stream: Stream, data: bytes) -> None:
        """Keep a block."""
        tail = self._tails[stream]
        tail += data
        self._counts[stream] += len(data)
        if len(tail) > 2 * KEPT_BYTES:
            del tail[:-KEPT_BYTES]

    def as_json(self, error: OpsError | None = None) -> dict[str, Any]:
        """Return plain JSON data. `stdout_encoding`: `utf-8` where the stream is text as it stands, else `base64`."""
        data: dict[str, Any] = {"exit_code": self.exit_code, "signal": self.signal}
        for stream, tail in self._tails.items():
            data[f"{stream}_encoding"], data[stream] = _text(bytes(tail[-KEPT_BYTES:]), self._counts[stream])
            data[f"{stream}_bytes"] = self._counts[stream]
        data["truncated"] = max(self._counts.values()) > KEPT_BYTES
        data["error"] = error and {"code": error.code, "message": error.message, "hint": error.hint}
        return data


@contextmanager
def of_a_bottle(state: State, identity: str, *, asked: bool) -> Iterator[Outcome | None]:
    """What to fill in while a bottle runs; then one object is printed, of a failure too. None: nobody asked."""
    if not asked:
        yield None
        return
    outcome = Outcome()
    try:
        yield outcome
    except OpsError as error:
        print_json(row(state, identity, state.alive(identity)) | outcome.as_json(error))
        raise
    print_json(row(state, identity, state.alive(identity)) | outcome.as_json())


def _text(data: bytes, count: int) -> tuple[str, str]:
    # What was cut off may have taken the beginning of a character along: at most three bytes of it are left.
    cut = next((at for at in range(min(4, len(data))) if data[at] & 0xC0 != 0x80), 0) if count > len(data) else 0
    try:
        return "utf-8", data[cut:].decode("utf-8")
    except UnicodeDecodeError:
        return "base64", base64.b64encode(data).decode("ascii")
