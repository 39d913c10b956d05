"""`FrameReader`: a host's bytes taken apart into frames, none of them larger or stranger than its kind allows."""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack

from opsexec.far import frames
from opsexec.far.frames import HEADER

_STREAMS = (frames.OUTPUT, frames.ERRORS)

NOISE_LIMIT = 256 << 10
"""Bytes a host's shell may print before the session speaks; more is searched too, but not kept."""
FAILURE_LIMIT = 1 << 20
"""Bytes of a FAILED frame: its sentence, and the grants that a denial lists."""
LIMITS = {
    frames.BEAT: 0,
    frames.HELLO: 4096,
    frames.EXIT: 4,
    frames.TAKEN: 4,
    frames.ENDED: 4,
    frames.FAILED: FAILURE_LIMIT,
}
"""Longest payload of the kinds that say something about one run or the session."""


class FrameReader:
    """Calls `on_output(kind, ref, block)` with output as it comes, `on_frame(kind, ref, payload)` with whole frames.

    `answer_limit(ref)`: the longest answer that call may have, in bytes; None when nobody waits for one: it is skipped.
    Both callbacks raise ValueError for what makes no sense, as `take` does.
    """

    def __init__(
        self,
        nonce: str,
        on_output: Callable[[int, int, bytes], None],
        on_frame: Callable[[int, int, bytes], None],
        answer_limit: Callable[[int], int | None],
    ) -> None:
        self._nonce = nonce.encode()
        self._on_output = on_output
        self._on_frame = on_frame
        self._answer_limit = answer_limit
        self._noise = bytearray()
        self._greeted = False
        self._head = b""
        self._kind = self._ref = self._left = 0
        self._skipping = False
        self._body: list[bytes] = []

    @property
    def noise(self) -> bytes:
        """The end of what was printed while the session has not spoken."""
        return bytes(self._noise[-NOISE_LIMIT:])

    def take(self, data: bytes) -> None:
        """Take bytes as they come; raises ValueError, whose text says what the host did, and is of no use after it."""
        if not self._greeted:
            data = self._greet(data)
        if self._head:
            data = self._head + data
            self._head = b""
        at, size = 0, len(data)
        while at < size:
            left = self._left
            if left:
                take = left if left < size - at else size - at
                block = data if take == size else data[at : at + take]
                at += take
                if self._kind in _STREAMS:
                    self._left = left - take
                    self._on_output(self._kind, self._ref, block)
                else:
                    self._payload(block)
                continue
            if size - at < HEADER.size:
                self._head = data[at:]
                return
            self._begin(*HEADER.unpack_from(data, at))
            at += HEADER.size

    def _greet(self, data: bytes) -> bytes:
        """Skip what the host's shell printed before the session spoke; return what comes after the nonce."""
        noise = self._noise
        searched = max(0, len(noise) - len(self._nonce) + 1)
        noise += data
        at = noise.find(self._nonce, searched)
        if at < 0:
            if len(noise) > 2 * NOISE_LIMIT:
                del noise[:-NOISE_LIMIT]
            return b""
        self._greeted = True
        rest = bytes(noise[at + len(self._nonce) :])
        noise.clear()
        return rest

    def _begin(self, kind: int, ref: int, size: int) -> None:
        self._kind, self._ref, self._left = kind, ref, size
        self._skipping = False
        if kind in _STREAMS:
            limit: int | None = frames.MAX_FRAME
        elif kind == frames.ANSWER:
            limit = self._answer_limit(ref)
            self._skipping = limit is None
            limit = frames.MAX_FRAME if limit is None else limit
        else:
            limit = LIMITS.get(kind)
        if limit is None:
            raise ValueError(f"sent a frame of unknown kind {kind}")
        if size > limit:
            raise ValueError(f"sent a frame of kind {kind} with {size} bytes, and {limit} are the most")
        if kind in (frames.EXIT, frames.TAKEN, frames.ENDED) and size != limit:
            raise ValueError(f"sent a frame of kind {kind} with {size} bytes, not {limit}")
        if not size:
            self._whole(b"")

    def _payload(self, data: bytes) -> None:
        self._left -= len(data)
        if self._skipping:
            return
        self._body.append(data)
        if not self._left:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = []
            self._whole(body)

    def _whole(self, payload: bytes) -> None:
        if self._kind not in _STREAMS and not self._skipping:
            self._on_frame(self._kind, self._ref, payload)


def exit_status(payload: bytes) -> int:
    """Return an EXIT frame's status; raises ValueError for one that no process of Linux can have (wait(2))."""
    (status,) = unpack(">i", payload)
    if not -64 <= status <= 255:
        raise ValueError(f"says that a program ended with status {status}")
    return int(status)
