"""The answer to one request: frames (or lines of JSON) while the step runs, and one end."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import msgspec

from agent import http_server as web
from agent.connection import Connection
from agent.responses import LAST_CHUNK, METHODS, ChunkedResponse, WholeResponse, chunk
from opsexec.errors import OpsError
from opsexec.executor import RunOutput, Stream
from opsexec.wire import (
    BEAT,
    BEAT_S,
    ERR,
    ERROR,
    FRAMES_TYPE,
    MAX_BULK_FRAME,
    NOTE,
    OUT,
    PROTOCOL,
    STARTED,
    VERSION_HEADER,
    Result,
    encode_result,
    frame,
    frame_head,
)
from opsexec.wire_errors import pack_error

LINES_TYPE = "application/x-ndjson"
FLUSH_S = 0.002
"""Seconds that little output may wait for more before it goes out: a short step's whole answer is one write."""

FLUSH_BYTES = 64 << 10

STATUS = {
    "usage": 400,
    "bad_step": 400,
    "bad_capability": 400,
    "protocol": 400,
    "denied": 403,
    "limit": 429,
    "audit": 503,
}
"""HTTP status of an error that comes before any output, by its code; 200 for a step that ran and failed."""


class Answer:
    """Implements LogSink over one HTTP response. Exactly one of `result` and `error` ends it.

    What is waiting to be read by a slow client holds the step up; after `stall_s` seconds without any progress the
    connection is dropped, and with it the step.
    """

    def __init__(self, request: web.BaseRequest, stall_s: float) -> None:
        self._request = request
        self._stall_s = stall_s
        self.lines = LINES_TYPE in request.headers.get("Accept", "")
        kind = LINES_TYPE if self.lines else FRAMES_TYPE
        self.headers = {"Content-Type": kind, VERSION_HEADER: PROTOCOL, "Server": "ops-agent"}
        self._waiting: list[bytes] = []
        self._size = 0
        self._response: web.StreamResponse | None = None
        self._sending = asyncio.Lock()
        self._flush: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._spoke = self._loop.time()

    @property
    def connection(self) -> Connection:
        """The connection it goes out on."""
        connection = self._request.protocol
        assert isinstance(connection, Connection)
        return connection

    def begin(self) -> None:
        """Start to beat: from now on the client hears of us at least every BEAT_S seconds."""
        self._beat = self._loop.call_later(BEAT_S, self._tick)

    def _tick(self) -> None:
        self._beat = self._loop.call_later(BEAT_S, self._tick)
        if self._loop.time() - self._spoke >= BEAT_S and not self._sending.locked():
            self._keep(b'{"beat":true}\n' if self.lines else frame(BEAT))
            self._begin_flush()

    async def write(self, stream: Stream, data: bytes) -> None:
        """Send output on; returns when the client keeps up."""
        if self.lines:
            self._keep(_line({_stream_key(stream, data): _text(data)}))
        else:
            kind = OUT if stream == "stdout" else ERR
            for at in range(0, len(data), MAX_BULK_FRAME):
                piece = data[at : at + MAX_BULK_FRAME] if at or len(data) > MAX_BULK_FRAME else data
                self._keep(frame_head(kind, len(piece)))
                self._keep(piece)
        if self._size >= FLUSH_BYTES:
            await self._send()
        elif self._flush is None:
            self._flush = self._loop.call_later(FLUSH_S, self._begin_flush)

    def note(self, text: str) -> None:
        """Tell the caller something of the agent's own, beside the output."""
        self._keep(_line({"note": text}) if self.lines else frame(NOTE, text.encode("utf-8", "replace")))
        self._begin_flush()

    async def write_frames(self, data: bytes) -> None:
        """Send whole frames on as they are."""
        self._keep(data)
        await self._send()

    def _keep(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)

    def _begin_flush(self) -> None:
        self._flush = None
        if self._flushing is None or self._flushing.done():
            self._flushing = self._loop.create_task(self._send())
            self._flushing.add_done_callback(_retrieved)

    async def _send(self) -> None:
        async with self._sending:
            if not self._size:
                return
            data, self._waiting, self._size = chunk(self._size, self._waiting), [], 0
            try:
                async with asyncio.timeout(self._stall_s):
                    if self._response is None:
                        await self._prepare()
                    assert self._response is not None
                    await self._response.write(data)
            except TimeoutError:
                self._drop()
                raise
            self._spoke = self._loop.time()

    def _drop(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _prepare(self) -> None:
        response = ChunkedResponse(headers={**self.headers, "Transfer-Encoding": "chunked"})
        await response.prepare(self._request)
        self._response = response

    async def started(self, run: str) -> web.StreamResponse:
        """End with the id of a run that was started and lives on."""
        return await self._end(_line({"started": run}) if self.lines else frame(STARTED, run.encode()))

    async def output(self, output: RunOutput) -> web.StreamResponse:
        """End with what a step did."""
        return await self.result(result_of(output))

    async def result(self, result: Result) -> web.StreamResponse:
        """End with a result."""
        if self.lines:
            return await self._end(_line({"result": msgspec.to_builtins(result)}))
        return await self._end(encode_result(result))

    async def error(self, error: OpsError) -> web.StreamResponse:
        """End with an error; before any output its HTTP status says its kind too."""
        wire = pack_error(error)
        if self.lines:
            return await self._end(_line({"error": msgspec.to_builtins(wire)}), STATUS.get(wire.code, 200))
        return await self._end(frame(ERROR, msgspec.msgpack.encode(wire)), STATUS.get(wire.code, 200))

    async def _end(self, data: bytes, status: int = 200) -> web.StreamResponse:
        self.close()
        async with self._sending:
            self._keep(data)
            body, self._waiting, self._size = b"".join(self._waiting), [], 0
            response = self._response
            if response is None and self._request.method in METHODS:
                return WholeResponse(self._request, status, self.headers, body, self._stall_s)
            if response is None:
                return web.Response(status=status, body=body, headers=self.headers)
            try:
                async with asyncio.timeout(self._stall_s):
                    await response.write(chunk(len(body), [body]) + LAST_CHUNK)
                    await response.write_eof()
            except TimeoutError:
                self._drop()
                raise
            return response

    def close(self) -> None:
        """Stop the clocks; what waits is sent by the end, or by nobody."""
        for timer in (self._flush, self._beat):
            if timer is not None:
                timer.cancel()


def result_of(output: RunOutput) -> Result:
    """Return a run's end as it travels: without its output, which went ahead."""
    return Result(
        run=output.run,
        exit_code=output.exit_code,
        signal=output.signal,
        duration_s=output.duration_s,
        stdout_bytes=output.stdout_bytes,
        stderr_bytes=output.stderr_bytes,
        digest=output.digest,
        changed=output.changed,
        diff=output.diff,
        skipped=output.skipped,
        value=output.value,
    )


def _retrieved(task: asyncio.Task[None]) -> None:
    """A flush that failed means that the client went away: its step is cancelled by that, nobody else asks."""
    if not task.cancelled():
        task.exception()


def _stream_key(stream: Stream, data: bytes) -> str:
    return stream if _is_text(data) else f"{stream}_base64"


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(data: bytes) -> str:
    return data.decode() if _is_text(data) else base64.b64encode(data).decode()


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"
