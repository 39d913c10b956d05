"""The stream between the two ends of a copy that rsync doesn't carry: frames and raw bytes over blocking descriptors.

A frame is 1 byte kind, 4 bytes length (big-endian), payload. An end from which nothing comes for IDLE_S is given up.
"""

from __future__ import annotations

import os
import time
from struct import Struct

from opsexec.far.message import FarError, as_bytes, as_text, pack_message, unpack_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable
    from types import FrameType
else:
    import _signal as signal  # the module behind `signal`, which costs 5 ms to load

HEADER = Struct(">BI")
MAX_FRAME = 4 << 20
BLOCK = 256 << 10
IDLE_S = 120
"""Seconds without a byte after which the other end counts as gone; both ends say something much more often."""
ALIVE_S = 5.0
"""Seconds between signs of life of an end that is busy with its own disk."""

# sending end -> receiving end
USERS = 1  # numbers and names, "uid\0name" messages
GROUPS = 2
ENTRIES = 3  # see tree_entry.unpack_entries
LISTED = 4  # b"1" when something could not be listed, so that nothing may be deleted
# receiving end -> sending end
WANTED = 5  # 4 bytes a file: its place in the list; an empty one ends them
# either way
ALIVE = 6
PROBLEM = 7  # a sentence: what could not be copied
SKIPPED = 8  # a sentence: what was left out on purpose
CHANGES = 9  # message: itemised lines
TOTAL = 10  # 8 bytes: how many lines there were in all
FAILURE = 11  # message: code, text, details; from the caller's own end `here` or `host` comes first
DONE = 12


ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Ended(BaseException):
    """This process was told to end: whatever is half made is taken away on the way out."""


class Told(FarError):
    """The other end gave up, and said why."""


class Pipe:
    """One end's view. `rate`: bytes a second that `write` lets through, 0 = all."""

    def __init__(self, reading: int, writing: int, rate: int = 0) -> None:
        self.reading = reading
        self.writing = writing
        self.rate = rate
        self._in = bytearray()
        self._out = []  # type: list[bytes]
        self._out_size = 0
        self._began = self._spoke = time.monotonic()
        self._passed = 0

    # -- frames ---------------------------------------------------------------------------------------------------

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Queue a frame; it leaves with `flush`, or when enough has gathered."""
        self._queue(HEADER.pack(kind, len(payload)))
        self._queue(payload)

    def receive(self) -> tuple[int, bytes]:
        """Return the next frame that is more than a sign of life; a FAILURE is raised as Told."""
        while True:
            kind, size = HEADER.unpack(self.read(HEADER.size))
            if size > MAX_FRAME:
                raise FarError("protocol", "the other end of the copy sent a frame over the limit")
            payload = self.read(size)
            if kind == FAILURE:
                code, text, *details = [as_text(item) for item in unpack_message(payload)]
                raise Told(code, text, *details)
            if kind != ALIVE:
                return kind, payload

    def alive(self) -> None:
        """Say now and then that this end is at work; called wherever work may take long."""
        if time.monotonic() - self._spoke > ALIVE_S:
            self.send(ALIVE)
            self.flush()

    # -- bytes ----------------------------------------------------------------------------------------------------

    def read(self, size: int) -> bytes:
        """Return exactly this many bytes; raises FarError `cut` when the other end is gone."""
        while len(self._in) < size:
            self._in += self._read(max(BLOCK, size - len(self._in)) if size < BLOCK else size - len(self._in))
        data = bytes(self._in[:size])
        del self._in[:size]
        return data

    def read_some(self, limit: int) -> bytes:
        """Return between 1 and `limit` bytes."""
        if self._in:
            data = bytes(self._in[:limit])
            del self._in[: len(data)]
            return data
        return self._read(min(limit, BLOCK))

    def write(self, data: bytes) -> None:
        """Queue raw bytes, at the pace of `rate`."""
        if not self.rate:
            self._queue(data)
            return
        step = max(512, self.rate // 10)
        for at in range(0, len(data), step):
            part = data[at : at + step]
            self._queue(part)
            self._passed += len(part)
            ahead = self._passed / self.rate - (time.monotonic() - self._began)
            if ahead > 0.05:
                self.flush()
                time.sleep(ahead)

    def flush(self) -> None:
        """Write what is queued. Raises BrokenPipeError when the other end is gone."""
        data = b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        view = memoryview(data)
        while view:
            view = view[self._write(view) :]
        self._spoke = time.monotonic()

    def _queue(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= BLOCK:
            self.flush()

    def _read(self, size: int) -> bytes:
        signal.alarm(IDLE_S)
        try:
            data = os.read(self.reading, size)
        finally:
            signal.alarm(0)
        if not data:
            raise FarError("cut", "the other end of the copy ended early")
        return data

    def _write(self, data: memoryview) -> int:
        signal.alarm(IDLE_S)
        try:
            return os.write(self.writing, data)
        finally:
            signal.alarm(0)


def send_texts(pipe: Pipe, kind: int, texts: Iterable[bytes]) -> None:
    """Send lines in as few frames as fit."""
    batch = []  # type: list[bytes]
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size > 65536 or len(batch) >= 4096:
            pipe.send(kind, pack_message(batch))
            batch, size = [], 0
    if batch:
        pipe.send(kind, pack_message(batch))


def send_failure(pipe: Pipe, error: FarError, *first: str) -> None:
    """Send why this end gave up."""
    texts = (*first, error.code, error.text, *error.details)
    pipe.send(FAILURE, pack_message([as_bytes(text) for text in texts]))
    pipe.flush()


def heed_signals() -> None:
    """Turn the signals that end a process into `Ended`, and a stalled pipe into a FarError."""
    for number in ENDINGS:
        signal.signal(number, _end)
    signal.signal(signal.SIGALRM, _stalled)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    for each in ENDINGS:
        signal.signal(each, signal.SIG_IGN)  # tidying up isn't interrupted again
    raise Ended


def _stalled(number: int, frame: FrameType | None) -> None:
    raise FarError("cut", f"nothing came from the other end of the copy for {IDLE_S} seconds")
