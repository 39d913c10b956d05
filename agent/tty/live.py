"""What the terminals of one agent share: those that are open, their recordings, the questions about new ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.tty.consent import Consents
from agent.tty.recordings import Recordings
from agent.tty.tape import Tape


class LiveTape:
    """The recording of a terminal that is open. `over` is set once nothing more comes."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.over = asyncio.Event()
        self._waiting: set[asyncio.Event] = set()

    def grew(self) -> None:
        """Wake who watches; it costs the terminal no more than that, however slow they are."""
        while self._waiting:
            self._waiting.pop().set()

    async def more(self, seen: int) -> None:
        """Wait until the recording is longer than this, in bytes, or over."""
        while self.tape.size <= seen and not self.over.is_set():
            changed = asyncio.Event()
            self._waiting.add(changed)
            try:
                await changed.wait()
            finally:
                self._waiting.discard(changed)

    def end(self) -> None:
        """Nothing more comes."""
        self.over.set()
        self.grew()


class Terminals:
    """One agent's terminals."""

    def __init__(self, directory: Path) -> None:
        self.recordings = Recordings(directory)
        self.live: dict[str, LiveTape] = {}
        self.consents = Consents()
