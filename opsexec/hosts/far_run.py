"""`FarRun`: one program on a host, as the caller's end of the session holds it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from opsexec.errors import ConnectionLost, LimitExceeded
from opsexec.far import frames
from opsexec.far.frames import NUMBER

if TYPE_CHECKING:
    from opsexec.errors import OpsError
    from opsexec.hosts.session import FarSession
    from opsexec.recorder import Recorder

_GRANT_AT = frames.OUTPUT_WINDOW // 2
END_WAIT_S = 5.0
"""Seconds to wait for the host to say that a tree has ended; after that the error says it is unknown."""


class FarRun:
    """One program, as the caller holds it."""

    def __init__(self, session: FarSession, ref: int, recorder: Recorder) -> None:
        self.session = session
        self.ref = ref
        self.recorder = recorder
        self.done: asyncio.Future[int] = session.loop.create_future()
        self.ended: asyncio.Future[int] | None = None
        self.why: OpsError | None = None
        self.owed = 0
        self.input_room = frames.INPUT_WINDOW
        self.input_ready = asyncio.Event()
        recorder.on_drain = self.grant
        recorder.on_failure = self.stop

    def output(self, stream: int, data: bytes) -> None:
        """Take a block of output; grants more once half a window has been taken, unless the sink is behind.

        Raises ValueError for more than was granted: a host could fill this process's memory with it.
        """
        owed = self.owed = self.owed + len(data)
        if owed > frames.OUTPUT_WINDOW:
            raise ValueError("sent more output than it was granted")
        if self.why is not None and self.recorder.over_limit:
            return  # its tree is being ended: what it says until then goes nowhere, and it is granted no more
        if self.recorder.feed(stream, data) and owed >= _GRANT_AT:
            self.grant()
        if self.recorder.limit_bytes is not None and self.recorder.over_limit and self.why is None:
            limit = self.recorder.limit_bytes
            text = f"output is over the limit of {limit} bytes"
            self.why = LimitExceeded(text, host=self.session.host, hint="its process tree was ended")
            self.stop()

    def grant(self) -> None:
        """Let the host send as much as was taken."""
        if self.owed and not self.done.done():
            self.session.send(frames.CREDIT, self.ref, NUMBER.pack(self.owed))
        self.owed = 0

    def stop(self) -> None:
        """Ask the host to end the tree; the first call counts."""
        if self.ended is None:
            self.ended = self.session.loop.create_future()
            if not self.session.lost:
                self.session.send(frames.END, self.ref, NUMBER.pack(int(frames.GRACE_S * 1000)))
                self.session.loop.call_later(END_WAIT_S, self._no_word)
            else:
                self.ended.set_result(0)

    def _no_word(self) -> None:
        """The host never said that the tree ended: it, its session or the network is frozen."""
        if not self.done.done():
            self.session.fail(no_word_of_end(self.session.host))


def no_word_of_end(host: str) -> ConnectionLost:
    """Return the error for a host that doesn't say within END_WAIT_S that a tree has ended: it would in half that."""
    text = f"no word within {END_WAIT_S:g} s that the process tree ended"
    return ConnectionLost(text, host=host, hint="look on the host")
