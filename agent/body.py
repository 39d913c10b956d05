"""The body of a step's request: frames, or one JSON object from a caller like curl."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from agent import http_server as web
from opsexec.errors import ProtocolError
from opsexec.steps.base import Step
from opsexec.steps.registry import encode_step
from opsexec.steps.vocabulary import AnyStep
from opsexec.wire import (
    REQUEST,
    RESIZE,
    STDIN,
    STDIN_END,
    TO_AGENT,
    FrameParser,
    Grants,
    StepRequest,
    decode_request,
    require_run_id,
)
from opsexec.wire_copy import COPY, CopyWords, decode_words

JSON_TYPE = "application/json"


class JsonRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request as JSON: a StepRequest with the step written out; `run` may be left out, input goes in the step."""

    step: AnyStep
    run: str | None = None
    check: bool = False
    diff: bool = False
    detach: bool = False
    attenuation: tuple[Grants, ...] | None = None


class Body:
    """Reads a request's body under its limits: `max_bytes` for the request, `within_s` seconds until it is whole."""

    def __init__(
        self, request: web.BaseRequest, max_bytes: int, within_s: float, kinds: frozenset[int] = TO_AGENT
    ) -> None:
        self._content: web.StreamReader = request.content
        self._json = request.content_type == JSON_TYPE
        self._max_bytes = max_bytes
        self._within_s = within_s
        self._frames: deque[tuple[int, bytes]] = deque()
        self._parser = FrameParser(self._take, kinds, max_bytes)

    def _take(self, kind: int, data: bytes) -> None:
        self._frames.append((kind, data))

    async def request(self) -> StepRequest:
        """Return the request; its step is not decoded yet. Raises ProtocolError or UsageError."""
        if not self._json and (data := self._content.read_nowait()):  # mostly it has come together with its head
            self._parser.feed(data)
        if self._frames:
            found = await self._frame_request()
        else:
            try:
                async with asyncio.timeout(self._within_s):
                    found = await (self._json_request() if self._json else self._frame_request())
            except TimeoutError as error:
                text = f"the request wasn't whole within {self._within_s:g} s"
                raise ProtocolError(text, hint="send faster") from error
        require_run_id(found.run)
        return found

    async def words(self) -> CopyWords:
        """Return what a copy's request says beside its step. Raises ProtocolError."""
        try:
            async with asyncio.timeout(self._within_s):
                found = None if self._json else await self._next()
        except TimeoutError as error:
            raise ProtocolError(f"the request wasn't whole within {self._within_s:g} s", hint="send faster") from error
        if found is None or found[0] != COPY:
            raise ProtocolError("a copy's request goes on with a COPY frame", hint="see docs/agent.md")
        return decode_words(found[1])

    async def _frame_request(self) -> StepRequest:
        first = await self._next()
        if first is None or first[0] != REQUEST:
            raise ProtocolError("a body begins with a REQUEST frame", hint="see docs/agent.md")
        return decode_request(first[1])

    async def _json_request(self) -> StepRequest:
        blocks, size = [], 0
        while block := await self._content.readany():
            size += len(block)
            if size > self._max_bytes:
                raise ProtocolError(f"the request is over {self._max_bytes} bytes", hint="send less at once")
            blocks.append(block)
        try:
            found = msgspec.json.decode(b"".join(blocks), type=JsonRequest)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
            raise ProtocolError(f"not a request: {error}", hint="see docs/agent.md") from error
        step: Step = found.step
        return StepRequest(
            run=found.run or secrets.token_hex(8),
            step=msgspec.Raw(encode_step(step)),
            check=found.check,
            diff=found.diff,
            detach=found.detach,
            attenuation=found.attenuation,
        )

    async def _next(self) -> tuple[int, bytes] | None:
        """Return the next frame, or piece of a bulk one; None at the end of the body."""
        while not self._frames:
            data = await self._content.readany()
            if not data:
                if not self._parser.between_frames:
                    raise ProtocolError("the body ends in the middle of a frame")
                return None
            self._parser.feed(data)
        return self._frames.popleft()

    async def keys(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield a terminal's keys and sizes as (STDIN or RESIZE, payload) as they come, until the input ends."""
        while (found := await self._next()) is not None:
            if found[0] == STDIN_END:
                return
            if found[0] not in (STDIN, RESIZE):
                raise ProtocolError("neither keys nor a size")
            yield found
        raise ProtocolError("the keys end without their last frame")

    async def stdin(self) -> AsyncIterator[bytes]:
        """Yield the program's input as it comes; a body that ends without saying that the input does is an error."""
        while True:
            found = await self._next()
            if found is None or found[0] in (REQUEST, COPY):
                raise ProtocolError("the input ends without its last frame")
            kind, data = found
            if kind == STDIN_END:
                return
            if kind == STDIN and data:
                yield data
