"""An engine's hijacked connections: one HTTP request, then a program's input one way and its output the other.

The `docker` package reads the head of such an answer through a buffer and hands out the bare socket: output that came
along with the head is lost (docker-py issue 2653 and its kind). So these few requests are made here, on the event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Literal, TypeVar

from opsexec.engine.client import Engine, EngineRefused
from opsexec.errors import HostUnsuitable, ProtocolError, StepTimeout
from opsexec.recorder import Recorder

T = TypeVar("T")
HEAD_S = 60.0
"""Seconds until the head of an answer must be there."""
MAX_HEAD = 64 << 10
BLOCK = 64 << 10
MAX_BODY = 1 << 20
_STREAMS = {1: 0, 2: 1}
"""Stream number in a frame's head -> the recorder's (Docker Engine API, "Attach to a container", stream format)."""


class Hijacked:
    """One open connection."""

    def __init__(self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._waits_since: float | None = None

    @classmethod
    async def open(cls, engine: Engine, target: str, body: dict[str, Any] | None = None) -> Hijacked:
        """POST to a target and take the connection over; raises EngineRefused, HostUnsuitable, ProtocolError."""
        reader, writer = await _connect(engine)
        hijacked = cls(engine, reader, writer)
        try:
            writer.write(_request(engine, target, body, "Upgrade: tcp\r\nConnection: Upgrade\r\n"))
            status, headers = await _head(engine, reader)
            if status not in (101, 200):
                raise await _refusal(engine, reader, status, headers)
        except BaseException:  # a cancellation as well: nobody else holds the connection
            hijacked.close()
            raise
        return hijacked

    async def feed(self, first: bytes, rest: AsyncIterator[bytes] | None) -> None:
        """Send input at the program's pace, then its end. A program that is gone takes none of it."""
        try:
            if first:
                self._writer.write(first)
                await self._writer.drain()
            if rest is not None:
                async for data in rest:
                    self._writer.write(data)
                    await self._writer.drain()
            if self._writer.can_write_eof():
                self._writer.write_eof()
        except (ConnectionError, BrokenPipeError):
            return

    async def follow(self, recorder: Recorder) -> None:
        """Feed the output to the recorder at its sink's pace, until its end, or until it is over its limit."""
        drained = asyncio.Event()
        recorder.on_drain = drained.set
        try:
            while (head := await self._heard(self._exactly(8))) is not None:
                stream = _STREAMS.get(head[0])
                if stream is None or head[1:4] != b"\0\0\0":
                    raise self._odd("a frame of no known stream")
                left = int.from_bytes(head[4:], "big")
                while left:
                    data = await self._heard(self._reader.read(min(left, BLOCK)))
                    if not data:
                        raise self._odd("a frame that breaks off")
                    left -= len(data)
                    drained.clear()
                    ready = recorder.feed(stream, data)
                    if recorder.over_limit:
                        return
                    if not ready:
                        await drained.wait()
        except OSError as error:
            text = f"the container engine at {self._engine.path} broke off the program's output"
            raise HostUnsuitable(text, host=self._engine.host, hint="did dockerd end?") from error
        finally:
            recorder.on_drain = None

    @property
    def silent_s(self) -> float:
        """Seconds that nothing has come for; 0 while there is something that its sink hasn't taken yet."""
        return 0.0 if self._waits_since is None else asyncio.get_running_loop().time() - self._waits_since

    async def _heard(self, read: Awaitable[T]) -> T:
        self._waits_since = asyncio.get_running_loop().time()
        try:
            return await read
        finally:
            self._waits_since = None

    async def _exactly(self, size: int) -> bytes | None:
        """Return so many bytes; None at the end."""
        try:
            return await self._reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise self._odd("a frame that breaks off") from error
            return None

    def _odd(self, what: str) -> ProtocolError:
        return ProtocolError(f"the container engine sent {what}", host=self._engine.host)

    def close(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()


class Exit:
    """How a container will have ended."""

    def __init__(self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._headers: dict[str, str] = {}

    @classmethod
    async def of(cls, engine: Engine, container: str, when: Literal["next-exit", "not-running"] = "next-exit") -> Exit:
        """Begin to wait: the engine sends the head of its answer once it watches.

        `when`: "next-exit" of one that isn't started yet, "not-running" of one that may have ended already.
        """
        reader, writer = await _connect(engine)
        found = cls(engine, reader, writer)
        try:
            target = f"/containers/{container}/wait?condition={when}"
            writer.write(_request(engine, target, None, "Connection: close\r\n"))
            status, found._headers = await _head(engine, reader)
            if status != 200:
                raise await _refusal(engine, reader, status, found._headers)
        except BaseException:  # as in open
            found.close()
            raise
        return found

    async def code(self) -> int:
        """Return the exit status, once there is one; raises HostUnsuitable when the engine ends before that."""
        try:
            code = json.loads(await _body(self._reader, self._headers))["StatusCode"]
            if isinstance(code, int):
                return code
            raise TypeError("StatusCode")
        except (ValueError, KeyError, TypeError, RecursionError, asyncio.IncompleteReadError, OSError) as error:
            text = f"the container engine at {self._engine.path} doesn't say how the container ended"
            raise HostUnsuitable(text, host=self._engine.host, hint="did dockerd end?") from error

    def close(self) -> None:
        """Wait no more."""
        self._writer.transport.abort()


async def _connect(engine: Engine) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(HEAD_S):
            return await asyncio.open_unix_connection(engine.near, limit=MAX_HEAD)
    except (OSError, TimeoutError) as error:
        text = f"the container engine at {engine.path} can't be reached"
        raise HostUnsuitable(text, host=engine.host, hint="is dockerd running?") from error


def _request(engine: Engine, target: str, body: dict[str, Any] | None, headers: str) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"POST /v{engine.version}{target} HTTP/1.1\r\nHost: docker\r\n{headers}"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode("ascii") + data


async def _head(engine: Engine, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Return the status and headers of an answer. A wait's head comes at once, its body when the container ended."""
    try:
        async with asyncio.timeout(HEAD_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        status = int(first.split(" ")[1])
        pairs = (line.partition(":") for line in lines)
        return status, {name.strip().lower(): value.strip() for name, _, value in pairs}
    except TimeoutError as error:
        text = f"the container engine at {engine.path} gave no answer within {HEAD_S:g} s"
        raise StepTimeout(text, host=engine.host, hint="is dockerd stuck? see its log") from error
    except (ValueError, IndexError, asyncio.LimitOverrunError, asyncio.IncompleteReadError, OSError) as error:
        text = f"what listens at {engine.path} doesn't answer as a container engine does"
        raise ProtocolError(text, host=engine.host, hint="is that docker's socket?") from error


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Return a body of at most MAX_BODY; raises ValueError, IncompleteReadError."""
    if "chunked" not in headers.get("transfer-encoding", ""):
        length = headers.get("content-length")
        if length is None:
            return await reader.read(MAX_BODY)
        return await reader.readexactly(min(int(length), MAX_BODY))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).strip() or b"0", 16):
        if len(body) + size > MAX_BODY:
            raise ValueError("over the limit")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return body


async def _refusal(engine: Engine, reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> EngineRefused:
    try:
        async with asyncio.timeout(HEAD_S):
            said = json.loads(await _body(reader, headers))["message"]
    except (ValueError, KeyError, TypeError, RecursionError, asyncio.IncompleteReadError, OSError, TimeoutError):
        said = f"HTTP {status}"
    text = "".join(letter if letter.isprintable() else " " for letter in str(said))[:400]
    return EngineRefused(f"the container engine says: {text}", status, host=engine.host)
