"""What a copy changed, as it is told line by line: bounded, and fit to be shown."""

from __future__ import annotations

import re
from typing import Literal

from opsexec.hosts.port import SyncResult

LISTED = 10_000
"""How many changed entries are listed; all are counted."""
LISTED_CHARACTERS = 4 << 20
"""How much text those entries may be: a host chooses their names."""
SKIPPED = 100
MAX_LINE = 10_000
"""Bytes of one line that are kept: a link's name and target are 4095 each at most."""
_UNSEEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\udc80-\udcff]+")


class CopyReport:
    """Gathers itemised lines (`rsync --itemize-changes` form), what was left out, and what could not be copied."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.count = 0
        self.skipped: list[str] = []
        self.problems: list[str] = []
        self._room = LISTED_CHARACTERS

    def change(self, line: bytes) -> None:
        """Take one itemised line."""
        self.count += 1
        if len(self.changes) < LISTED and self._room > 0:
            text = shown(line[:MAX_LINE])
            self._room -= len(text)
            self.changes.append(text)

    def skip(self, line: bytes) -> None:
        """Take a sentence about an entry that was left out on purpose."""
        if len(self.skipped) < SKIPPED:
            self.skipped.append(shown(line[:MAX_LINE]))

    def problem(self, line: bytes) -> None:
        """Take a sentence about an entry that could not be copied."""
        if len(self.problems) < SKIPPED:
            self.problems.append(shown(line[:MAX_LINE]))

    def made_top(self) -> None:
        """The destination was made before rsync saw it: say so, as rsync would have."""
        self.changes = ["cd+++++++++ ./" if line[11:] == " ./" else line for line in self.changes]

    def result(self, method: Literal["rsync", "tar"]) -> SyncResult:
        """Return it for the handler."""
        return SyncResult(changes=tuple(self.changes), method=method, count=self.count, skipped=tuple(self.skipped))


def shown(line: bytes) -> str:
    r"""Return text for a line whose bytes were chosen by others: what isn't UTF-8, or moves a terminal, as `\#ooo`.

    That is rsync's own notation (rsync(1), --8-bit-output); for what it has written so already nothing changes.
    """
    text = line.decode("utf-8", "surrogateescape")
    return _UNSEEN.sub(lambda match: "".join(f"\\#{b:03o}" for b in match[0].encode("utf-8", "surrogateescape")), text)
