"""A copy's bytes between a process here and the host's end, each way at the pace of the slower side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Protocol

from opsexec.errors import ConnectionLost, OpsError, ProtocolError
from opsexec.far.message import unpack_message

BLOCK = 256 << 10
MAX_NOISE = 256 << 10
"""Bytes a host's shell may print before the far end speaks."""
MAX_ANSWER = 1 << 20
MAX_COMPLAINT = 16 << 10


class Wire(Protocol):
    """A byte stream to the host's end. Nothing raises when the stream is gone: its bridge is told.

    The first write is the copy's request, whole.
    """

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def write_eof(self) -> None:
        """Send no more."""
        ...

    def pause_reading(self) -> None:
        """Ask for no more bytes for now."""
        ...

    def resume_reading(self) -> None:
        """Take bytes again."""
        ...

    def close(self) -> None:
        """Drop both directions at once; the host's end ends."""
        ...

    async def wait_closed(self) -> None:
        """Wait, bounded, until nothing of it is left on this machine."""
        ...


class Bridge:
    """Carries bytes between a local process's descriptors and a Wire.

    `answer`: what the host's end said to the request. `closed`: its exit status, None when the wire broke before that.
    `complaint`: the end of what it wrote to stderr.
    """

    def __init__(self, nonce: str, host: str, refusal: Callable[[int | None, str], OpsError]) -> None:
        self._loop = asyncio.get_running_loop()
        self._nonce = nonce.encode()
        self._host = host
        self._refusal = refusal
        self._buffer = b""
        self._greeted = False
        self.answer: asyncio.Future[list[bytes]] = self._loop.create_future()
        self.closed: asyncio.Future[int | None] = self._loop.create_future()
        self.complaint = b""
        self._wire: Wire | None = None
        self._from = self._to = -1
        self._pending = bytearray()
        self._ended = False
        self._holding = False

    @property
    def said(self) -> str:
        """The last line the host's end wrote to stderr."""
        return self.complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]

    # -- from the wire --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes from the host: first its answer to the request, then what its end of the copy says."""
        if self.answer.done() and self._to >= 0:
            self._deliver(data)
            return
        self._buffer += data
        if not self._greeted:
            at = self._buffer.find(self._nonce)
            if at < 0:
                self._buffer = self._buffer[-MAX_NOISE:]
                return
            self._greeted = True
            self._buffer = self._buffer[at + len(self._nonce) :]
        if not self.answer.done() and len(self._buffer) >= 4:
            self._take_answer(int.from_bytes(self._buffer[:4], "big"))

    def _take_answer(self, size: int) -> None:
        if size <= MAX_ANSWER and len(self._buffer) < 4 + size:
            return
        try:
            answer = unpack_message(self._buffer[4 : 4 + size])
        except ValueError as error:
            self.fail(ProtocolError(f"the host's end of the copy sent no answer: {error}", host=self._host))
            return
        self._buffer = self._buffer[4 + size :]
        self.answer.set_result(answer)

    def fail(self, error: OpsError) -> None:
        """Say why there is no answer, if there was none yet."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # it may have been given up already

    def complain(self, data: bytes) -> None:
        """Take bytes from the host's stderr."""
        self.complaint = (self.complaint + data)[-MAX_COMPLAINT:]

    def lost(self, status: int | None) -> None:
        """The wire is closed; `status` is the far program's, None when it broke before there was one."""
        self.fail(self._refusal(status, self.said))
        self._ended = True
        self._close_from()
        self._flush_end()
        if not self.closed.done():
            self.closed.set_result(status)

    def pause(self) -> None:
        """The wire takes no more for now."""
        self._holding = True
        if self._from >= 0:
            self._loop.remove_reader(self._from)

    def resume(self) -> None:
        """The wire takes more."""
        self._holding = False
        if self._from >= 0:
            self._loop.add_reader(self._from, self._readable)

    # -- the local process's descriptors --------------------------------------------------------------------------

    def join(self, wire: Wire, from_process: int, to_process: int) -> None:
        """Begin to carry; takes both file descriptors over."""
        self._wire, self._from, self._to = wire, from_process, to_process
        for fd in (from_process, to_process):
            os.set_blocking(fd, False)
        if self._ended:
            self._close_from()
        elif not self._holding:
            self._loop.add_reader(from_process, self._readable)
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._deliver(data)
        self._flush_end()

    def _readable(self) -> None:
        assert self._wire is not None
        try:
            data = os.read(self._from, BLOCK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data:
            self._wire.write(data)
            return
        self._close_from()
        self._wire.write_eof()

    def _deliver(self, data: bytes) -> None:
        if self._to < 0:
            return
        if not self._pending:
            done = self._give(data)
            if done == len(data) or self._to < 0:
                return
            data = data[done:]
            self._loop.add_writer(self._to, self._writable)
        self._pending += data
        if len(self._pending) > BLOCK and self._wire is not None:
            self._wire.pause_reading()

    def _writable(self) -> None:
        done = self._give(self._pending)
        if self._to < 0:
            return
        del self._pending[:done]
        if not self._pending:
            self._loop.remove_writer(self._to)
            if self._wire is not None and not self._ended:
                self._wire.resume_reading()
            self._flush_end()

    def _give(self, data: bytes | bytearray) -> int:
        """Write what the process takes at once; a process that is gone takes nothing, and its end is closed."""
        try:
            return os.write(self._to, data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            self._close_to()
            if self._wire is not None and not self._ended:
                self._wire.resume_reading()  # what still comes is dropped, up to the far end's status
            return 0

    def _flush_end(self) -> None:
        if self._ended and not self._pending:
            self._close_to()

    def _close_from(self) -> None:
        if self._from >= 0:
            self._loop.remove_reader(self._from)
            os.close(self._from)
            self._from = -1

    def _close_to(self) -> None:
        if self._to >= 0:
            self._loop.remove_writer(self._to)
            os.close(self._to)
            self._to = -1
            self._pending.clear()

    def close(self) -> None:
        """Let go of the local descriptors and of the wire."""
        self._close_from()
        self._close_to()
        if self._wire is not None:
            self._wire.close()


OpenFar = Callable[[str, str, Bridge], Awaitable[Wire]]
"""Starts a far module on a wire of its own: (its name, the nonce it says first, the bridge that takes its bytes)."""


def ended_early(host: str) -> ConnectionLost:
    """Return the error for a wire that broke while a copy was under way."""
    return ConnectionLost(
        "the connection was lost while copying; what was copied so far stays",
        host=host,
        hint="copy again: what is there already isn't sent twice",
    )
