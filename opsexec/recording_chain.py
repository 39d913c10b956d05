"""The hash chain through a recording: what makes a line that was changed, or cut off, show.

Between its lines a chained recording holds comments, which players skip (asciicast v3): `# link <n> <64 hex digits>`.
A link's hash is sha256 over the hash of the link before it (32 bytes) and all bytes since that link's line. The first
one follows from the run's id, so that one run's recording can't stand for another's. Whoever keeps a link elsewhere (an
agent puts each into its audit) can tell that everything before it is as it was written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from opsexec.errors import OpsError

_LINK = re.compile(rb"# link ([1-9][0-9]{0,11}) ([0-9a-f]{64})\n\Z")
MAX_LINE = 16 << 20


class RecordingForged(OpsError):
    """A recording that isn't what was recorded; the message says where it begins to differ."""

    code = "recording_forged"


class Anchor(msgspec.Struct, frozen=True):
    """A link as it was noted elsewhere. `bytes`: where its line ends; `final`: the terminal had ended by then."""

    bytes: int
    link: int
    head: str
    final: bool = False


class Verified(msgspec.Struct, frozen=True):
    """How much of a recording holds. Sizes in bytes, from its beginning.

    `chained`: up to its last link; `anchored`: up to the last link that is noted elsewhere; `size`: all of it;
    `complete`: the terminal's end is among what is anchored.
    """

    links: int
    chained: int
    anchored: int
    size: int
    complete: bool


def seed(run: str) -> bytes:
    """Return what the first link of a run's recording builds on."""
    return hashlib.sha256(b"opsexec recording 1\0" + run.encode()).digest()


class Chain:
    """The writer's side: takes the bytes of each line, makes links."""

    def __init__(self, run: str) -> None:
        self._hash = hashlib.sha256(seed(run))
        self.links = 0
        self.head = ""
        self.pending = 0
        """Bytes that no link covers yet."""

    def add(self, data: bytes | bytearray) -> None:
        """Take bytes that were written."""
        self._hash.update(data)
        self.pending += len(data)

    def next_link(self) -> bytes:
        """Return the line of the next link over what was added; it is itself not part of any."""
        self.links += 1
        digest = self._hash.digest()
        self.head = digest.hex()
        self._hash = hashlib.sha256(digest)
        self.pending = 0
        return b"# link %d %b\n" % (self.links, self.head.encode())


def verify_recording(path: str | Path, run: str, anchors: Iterable[Anchor]) -> Verified:
    """Check a recording against its own links and those noted elsewhere.

    Raises RecordingForged, naming the line, for a link that doesn't follow, for an anchor that isn't met, and for a
    recording that is shorter than its last anchor or has none at all.
    """
    waiting = sorted(anchors, key=lambda each: each.link)
    if not waiting:
        raise RecordingForged(f"no link of the run {run} was noted anywhere: nothing vouches for this recording")
    if len({each.link for each in waiting}) < len(waiting):
        raise RecordingForged(f"links of the run {run} were noted twice", hint="has somebody copied audit lines?")
    chain, known = Chain(run), {each.link: each for each in waiting}
    at = chained = anchored = number = 0
    with open(path, "rb") as stream:
        while line := stream.readline(MAX_LINE):
            number += 1
            at += len(line)
            found = _LINK.match(line)
            if found is None:
                chain.add(line)
                continue
            if chain.next_link() != line:
                raise RecordingForged(f"{path}:{number}: something before this line was changed, added or removed")
            chained = at
            anchor = known.pop(chain.links, None)
            if anchor is not None:
                if (anchor.head, anchor.bytes) != (chain.head, at):
                    raise RecordingForged(f"{path}:{number}: not what was recorded: the audit knows another hash")
                anchored = at
    if known:
        missing = min(known.values(), key=lambda each: each.link)
        text = f"{path}: cut off: {missing.bytes} bytes were recorded, and {at} are here"
        if at >= missing.bytes:
            text = f"{path}: link {missing.link}, which the audit knows, isn't here"
        raise RecordingForged(text)
    last = waiting[-1]
    if last.final and at > anchored:
        raise RecordingForged(f"{path}: {at - anchored} bytes were added after its end")
    return Verified(links=chain.links, chained=chained, anchored=anchored, size=at, complete=last.final)
