"""tailscaled's LocalAPI on its unix socket: who may have made that socket, and one bounded question to it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from opsexec.errors import HostUnreachable, ProtocolError
from opsexec.hosts.agent_http import AnswerParser

DEFAULT_LOCAL_API = "/var/run/tailscale/tailscaled.sock"
"""Where tailscaled listens on Linux when it isn't told otherwise (tailscaled(8), --socket)."""

HOST = "local-tailscaled.sock"
"""The only Host that the LocalAPI answers to: a page in a browser can't send it by itself."""

MAX_ANSWER = 64 << 20
"""Bytes of an answer: a tailnet of ten thousand nodes has a status of about 20 MB."""

_CREDENTIALS = struct.Struct("3i")


class TailnetUnavailable(HostUnreachable):
    """tailscaled doesn't say who is who: it isn't there, isn't running, hangs, or isn't who may say so."""

    code = "tailnet"


class LocalApi:
    """One tailscaled, by the path of its socket. It must be root's or this user's: whoever it is names every peer."""

    def __init__(self, path: str = DEFAULT_LOCAL_API) -> None:
        self.path = path
        self.uid: int | None = None
        """The uid of who listens, once it was asked."""

    async def get(self, target: str, within_s: float) -> tuple[int, bytes]:
        """Return the HTTP status and body that a GET is answered with; raises TailnetUnavailable, also when late."""
        try:
            async with asyncio.timeout(within_s), self.open() as (reader, writer):
                writer.write(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode("ascii"))
                return await _answer(reader)
        except TimeoutError as error:
            raise self._unavailable(f"gave no answer within {within_s:g} s") from error
        except ProtocolError as error:
            raise self._unavailable(f"doesn't answer as one does ({error.message})") from error
        except OSError as error:
            raise self._unavailable(f"broke off ({_reason(error)})") from error

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Lend a connection whose other end was looked at; raises TailnetUnavailable."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
        except OSError as error:
            raise self._unavailable(f"can't be reached ({_reason(error)})") from error
        try:
            self.require_trusted(writer.get_extra_info("socket"))
            yield reader, writer
        finally:
            writer.transport.abort()

    def require_trusted(self, connection: Any) -> None:
        """Raise unless root or this user listens there: SO_PEERCRED tells who called listen(2) (unix(7))."""
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, self.uid, _ = _CREDENTIALS.unpack(data)
        if self.uid not in (0, os.geteuid()):
            raise self._unavailable(f"is uid {self.uid}'s, who may not say who is who")

    def _unavailable(self, what: str) -> TailnetUnavailable:
        hint = "is tailscaled running, and is that its socket?"
        return TailnetUnavailable(f"tailscaled at {self.path} {what}", hint=hint)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    statuses: list[int] = []
    pieces: list[bytes | memoryview] = []
    size = 0
    parser = AnswerParser(lambda status, headers: statuses.append(status), pieces.append)
    while not parser.done:
        data = await reader.read(256 << 10)
        if not data:
            raise ProtocolError("the answer has no end")
        size += len(data)
        if size > MAX_ANSWER:
            raise ProtocolError(f"the answer is over {MAX_ANSWER} bytes")
        parser.feed(data)
    return statuses[0], b"".join(pieces)
