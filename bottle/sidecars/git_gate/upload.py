"""The body of a request: its length declared or chunked, its blocks in time, never more than may come."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from aiohttp.http_exceptions import HttpProcessingError

from bottle.sidecars.git_gate.bounds import Pace

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

UNPACK_STEP = 1 << 18
MAX_SAID = 120


class BadRequest(Exception):
    """A request that can't be served: `status` and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def malformed(error: HttpProcessingError) -> str:
    """Return what of a request is no HTTP: the first line of what its reader says, which quotes no more than a word."""
    said = error.message.partition("\n")[0].rstrip(": ")
    return f"the request is not HTTP: {said[:MAX_SAID]}" if said else "the request is not HTTP"


class Upload:
    """Reads one request's body. Raises BadRequest: 400 for no length, 408 for silence or a drip, 413 over the cap."""

    def __init__(self, request: BaseRequest, *, cap: int, idle_s: float) -> None:
        self._request = request
        self._cap = cap
        self._idle_s = idle_s
        self._pace = Pace(idle_s)
        self._clock = asyncio.get_running_loop()
        self._taken = 0
        self._packed = b""
        self._unpacker = None
        headers = request.headers
        chunked = headers.get("Transfer-Encoding", "").strip().lower() == "chunked"
        lengths = headers.getall("Content-Length", [])
        if chunked == bool(lengths):
            raise BadRequest(400, "a request needs a Content-Length, or chunks, and not both")
        if lengths:
            if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit() or len(lengths[0]) > 18:
                raise BadRequest(400, "the Content-Length is no length")
            if int(lengths[0]) > cap:
                raise BadRequest(413, f"the request is over the limit of {cap} bytes")
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip"):
            self._unpacker = zlib.decompressobj(31)
        elif encoding != "identity":
            raise BadRequest(415, "the body may be gzip, or nothing")

    async def read(self) -> bytes:
        """Return the next block, unpacked; b"" at the end."""
        if self._unpacker is None:
            block = await self._next()
            self._count(len(block))
            return block
        while not self._unpacker.eof:
            if not self._packed:
                self._packed = await self._next()
                if not self._packed:
                    raise BadRequest(400, "the gzip body is cut short")
            try:
                block = self._unpacker.decompress(self._packed, UNPACK_STEP)
            except zlib.error:
                raise BadRequest(400, "the body is not gzip") from None
            self._packed = self._unpacker.unconsumed_tail
            if block:
                self._count(len(block))
                return block
        return b""

    def _count(self, size: int) -> None:
        self._taken += size
        if self._taken > self._cap:
            raise BadRequest(413, f"the request is over the limit of {self._cap} bytes")

    async def _next(self) -> bytes:
        began = self._clock.time()
        try:
            async with asyncio.timeout(max(0.0, self._pace.left_s)):
                block = await self._request.content.readany()
        except TimeoutError:
            raise BadRequest(408, f"nothing came for {self._idle_s:g} s, or next to nothing") from None
        except HttpProcessingError as error:
            raise BadRequest(400, malformed(error)) from None
        self._pace.came(len(block), self._clock.time() - began)
        return block

    async def drain(self) -> None:
        """Take the rest and drop it: a client that is still sending doesn't listen."""
        while await self.read():
            pass
