"""The two shapes of an answer: whole in one write, or in chunks that are copied once on their way."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from agent import http_server as web

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METHODS = frozenset(("GET", "POST"))
"""Methods whose answers always have a body."""


class WholeResponse(web.StreamResponse):
    """Its head is put together by hand: aiohttp's way, made for every kind of answer, takes four times as long.

    Who doesn't read it is answered nothing more, and dropped after `stall_s` seconds.
    """

    def __init__(
        self, request: web.BaseRequest, status: int, headers: Mapping[str, str], body: bytes, stall_s: float
    ) -> None:
        super().__init__(status=status)
        self._asked = request
        self._fields = headers
        self._whole = body
        self._stall_s = stall_s

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing: `write_eof` does it all."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write it, and wait for a reader who is behind; raises ConnectionResetError when the client is gone."""
        if self._eof_sent:
            return
        keep = self._asked.keep_alive if self._keep_alive is None else self._keep_alive
        self._keep_alive = keep
        transport = self._asked.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._eof_sent = True
        head = _head(self.status, tuple(self._fields.items()), bool(keep))
        transport.write(b"%b%d\r\n\r\n%b" % (head, len(self._whole), self._whole))
        protocol = self._asked.protocol
        if protocol.writing_paused:
            try:
                async with asyncio.timeout(self._stall_s):
                    await protocol._drain_helper()  # as its own writer does
            except TimeoutError as error:
                transport.abort()
                raise ConnectionResetError("the client doesn't read its answers") from error


@lru_cache(64)
def _head(status: int, fields: tuple[tuple[str, str], ...], keep: bool) -> bytes:
    """Return an answer's head up to its length."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields)]
    if not keep:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "Content-Length: "]).encode("ascii")


class ChunkedResponse(web.StreamResponse):
    """An answer whose chunks are put together by `chunk`; the last one is LAST_CHUNK."""

    _length_check = False  # as for WebSockets: aiohttp neither counts nor chunks what is written


def chunk(size: int, parts: Sequence[bytes]) -> bytes:
    """Return parts of so many bytes in all as one chunk."""
    return b"".join((b"%x\r\n" % size, *parts, b"\r\n"))


LAST_CHUNK = b"0\r\n\r\n"
