"""The frames that AgentRpc and ops-agent exchange, and the messages in them.

A frame is one byte of kind, four bytes of length (big-endian), then so many bytes. A request is a REQUEST frame, then
STDIN frames and one STDIN_END where input is streamed. An answer is OUT and ERR frames while the step makes output,
BEAT frames while it makes none, and at its end exactly one RESULT or ERROR. On a terminal, STDIN frames are keys and go
on to its end, with RESIZE frames between them; NOTE frames say what the agent itself has to say, and SCREEN frames tell
who watches how large the screen is from there on.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import msgspec

from opsexec.capability import CapabilitySet, Layer
from opsexec.errors import BadCapability, BadStep, ProtocolError, UsageError
from opsexec.steps.base import Step
from opsexec.steps.registry import decode_step, encode_step, printable

PROTOCOL = "1.0"
"""Version of what is said here: a peer of another major is refused, a newer minor only adds."""

VERSION_HEADER = "Ops-Protocol"
OFFSET_HEADER = "Ops-Offset"
"""Where in a run's log an answer begins: at the frame that holds the byte that was asked for."""

FRAMES_TYPE = "application/vnd.opsexec.frames"
DEFAULT_SOCKET = "/run/ops-agent/agent.sock"

REQUEST, STDIN, STDIN_END, RESIZE = 0x01, 0x02, 0x03, 0x04
OUT, ERR, RESULT, ERROR, BEAT, STARTED, NOTE, SCREEN = 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18
TO_AGENT = frozenset((REQUEST, STDIN, STDIN_END))
TO_TERMINAL = TO_AGENT | {RESIZE}
FROM_AGENT = frozenset((OUT, ERR, RESULT, ERROR, BEAT, STARTED))
FROM_TERMINAL = FROM_AGENT | {NOTE, SCREEN}
SIZE = struct.Struct(">HH")
"""Columns and rows, as RESIZE and SCREEN frames have them."""

BULK = frozenset((STDIN, OUT, ERR))
"""Kinds whose payload is handed on as it comes, in pieces; every other frame is handed on whole."""

MAX_BULK_FRAME = 1 << 20
MAX_ANSWER_FRAME = 16 << 20
"""Bytes a RESULT or ERROR may have: a diff and a typed answer, never output."""
MAX_VALUE_DEPTH = 64
"""How deep the typed answer in a RESULT may be nested; none of this project's is half as deep."""

BEAT_S = 5.0
"""Seconds of silence after which the agent says that it is still there; a client gives up after four of them."""

_HEAD = struct.Struct(">BI")
HEAD_BYTES = _HEAD.size


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEAD.pack(kind, len(payload)) + payload


def frame_head(kind: int, size: int) -> bytes:
    """Return what comes before a frame's payload of so many bytes."""
    return _HEAD.pack(kind, size)


class FrameParser:
    """Splits bytes into frames, however they were cut on the way.

    `take(kind, data)` gets bulk payloads in pieces and every other payload whole. `max_whole`: bytes a whole one may
    have. Raises ProtocolError for a kind that isn't in `kinds` and a frame over its limit; nothing is kept of bulk.
    """

    def __init__(self, take: Callable[[int, bytes], None], kinds: frozenset[int], max_whole: int) -> None:
        self._take = take
        self._kinds = kinds
        self._max_whole = max_whole
        self._head = b""
        self._kind = 0
        self._left = 0
        self._size = 0
        self._parts: list[bytes] = []
        self.bulk_done = 0
        """Bytes of whole bulk frames that have passed, heads included: how far a log was read."""

    @property
    def between_frames(self) -> bool:
        """True when no frame is under way: the stream may end here."""
        return not self._left and not self._head

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes; what is taken of a view is copied, once."""
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                need = HEAD_BYTES - len(self._head)
                self._head += bytes(data[at : at + need])
                at += need
                if len(self._head) < HEAD_BYTES:
                    return
                self._begin()
                continue
            block = data if not at and end <= self._left else data[at : at + self._left]
            piece = block if isinstance(block, bytes) else bytes(block)
            at += len(piece)
            self._left -= len(piece)
            if self._kind in BULK:
                if not self._left:
                    self.bulk_done += HEAD_BYTES + self._size
                self._take(self._kind, piece)
            elif self._left:
                self._parts.append(piece)
            else:
                whole = b"".join((*self._parts, piece))
                self._parts = []
                self._take(self._kind, whole)

    def _begin(self) -> None:
        self._kind, self._left = _HEAD.unpack(self._head)
        self._head = b""
        self._size = self._left
        if self._kind not in self._kinds:
            raise ProtocolError(f"unknown frame kind 0x{self._kind:02x}", hint="both sides must be the same version")
        limit = MAX_BULK_FRAME if self._kind in BULK else self._max_whole
        if self._left > limit:
            raise ProtocolError(f"a frame of {self._left} bytes is over the limit of {limit}", hint="send less at once")
        if not self._left:
            self._take(self._kind, b"")


REMEMBERED_CHARACTERS = 8192
"""Longest set of a caller that is kept from one step to the next: most callers narrow themselves always alike."""


MAX_GRANTS, MAX_GRANT_CHARACTERS = 4096, 128 << 10
"""What a caller may narrow itself to, in all its layers: reading it takes time in which nobody else is served."""


class Grants(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One layer of a caller's own set, as it travels."""

    capabilities: tuple[str, ...]
    run_as: tuple[str, ...] = ()
    max_timeout_s: float | None = None
    max_output_bytes: int | None = None


class StepRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What a REQUEST frame holds.

    `step`: the step; `step_text` instead of it where a text of the step is no UTF-8 (JSON, lone surrogates escaped).
    `attenuation`: layers the caller narrows itself to, None = not at all. `streams_stdin`: STDIN frames follow.
    """

    run: str
    step: msgspec.Raw = msgspec.Raw()
    step_text: str | None = None
    check: bool = False
    diff: bool = False
    detach: bool = False
    streams_stdin: bool = False
    attenuation: tuple[Grants, ...] | None = None

    def decoded_step(self) -> Step:
        """Return the step; raises BadStep for anything that isn't one."""
        packed = bytes(self.step)
        if bool(packed) == (self.step_text is not None):
            raise BadStep("a request holds exactly one step")
        if packed:
            try:
                return decode_step(packed)
            except UnicodeDecodeError as error:
                raise BadStep(f"not a step: {error}") from error
        from opsexec.steps.vocabulary import AnyStep

        try:
            step: Step = msgspec.convert(json.loads(self.step_text or ""), AnyStep)
        except (ValueError, RecursionError, msgspec.ValidationError) as error:
            raise BadStep(f"not a step: {error}") from error
        return step

    def ceiling(self) -> CapabilitySet | None:
        """Return what the caller narrowed itself to; raises BadCapability."""
        return None if self.attenuation is None else unpack_grants(self.attenuation)


@cache
def _request_decoder() -> msgspec.msgpack.Decoder[StepRequest]:
    """Made when it is first needed: a caller never does."""
    return msgspec.msgpack.Decoder(StepRequest)


def decode_request(data: bytes) -> StepRequest:
    """Decode a REQUEST frame; raises ProtocolError."""
    try:
        return _request_decoder().decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a request: {error}", hint="see docs/agent.md") from error


def encode_request(step: Step, **fields: Any) -> bytes:
    """Return a whole REQUEST frame for a step; secrets are revealed in it. Raises UsageError for an odd grant."""
    try:
        request = StepRequest(step=msgspec.Raw(encode_step(step)), **fields)
        return frame(REQUEST, msgspec.msgpack.encode(request))
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(step))
        try:
            return frame(REQUEST, msgspec.msgpack.encode(StepRequest(step_text=text, **fields)))
        except UnicodeEncodeError as error:
            what = f"the grant {error.object[:80]!r} is not UTF-8, which an agent can't be told"
            raise UsageError(what, hint="name it by a pattern, with * for those bytes") from error


def pack_grants(capabilities: CapabilitySet) -> tuple[Grants, ...] | None:
    """Return a set's layers as they travel; None for a set that narrows nothing."""
    if capabilities == CapabilitySet.everything():
        return None
    return tuple(
        Grants(
            tuple(sorted(c.text for c in layer.capabilities)),
            tuple(sorted(layer.run_as)),
            layer.max_timeout_s,
            layer.max_output_bytes,
        )
        for layer in capabilities.layers
    )


def unpack_grants(grants: tuple[Grants, ...]) -> CapabilitySet:
    """Return the set that travelled; raises BadCapability, also for too large a one. No layer at all admits nothing."""
    count = sum(1 + len(each.capabilities) + len(each.run_as) for each in grants)
    size = sum(len(text) for each in grants for text in (*each.capabilities, *each.run_as))
    if count > MAX_GRANTS or size > MAX_GRANT_CHARACTERS:
        text = f"a caller's own set is over {MAX_GRANTS} grants, or {MAX_GRANT_CHARACTERS} characters"
        raise BadCapability(text, hint="say it with patterns")
    return _remembered(grants) if size <= REMEMBERED_CHARACTERS else _unpacked(grants)


@lru_cache(maxsize=64)
def _remembered(grants: tuple[Grants, ...]) -> CapabilitySet:
    return _unpacked(grants)


def _unpacked(grants: tuple[Grants, ...]) -> CapabilitySet:
    layers: set[Layer] = set()
    for each in grants:
        layers |= CapabilitySet.of(
            *each.capabilities,
            run_as=each.run_as,
            max_timeout_s=each.max_timeout_s,
            max_output_bytes=each.max_output_bytes,
        ).layers
    return CapabilitySet(layers or CapabilitySet.nothing().layers)


class Result(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a RESULT frame holds: a RunOutput without its output, which went ahead in OUT and ERR frames."""

    run: str
    exit_code: int | None = None
    signal: str | None = None
    duration_s: float = 0.0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    digest: str = ""
    changed: bool = False
    diff: str | None = None
    skipped: str | None = None
    value: Any = None


def encode_result(result: Result) -> bytes:
    """Return a RESULT frame; text of the host that is no UTF-8 is escaped, since it is only shown."""
    try:
        return frame(RESULT, msgspec.msgpack.encode(result))
    except UnicodeEncodeError:
        changes = {"diff": _shown(result.diff), "skipped": _shown(result.skipped), "value": _shown(result.value)}
        return frame(RESULT, msgspec.msgpack.encode(msgspec.structs.replace(result, **changes)))


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {_shown(name): _shown(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(each) for each in value]
    return printable(value)


@cache
def _result_decoder() -> msgspec.msgpack.Decoder[Result]:
    return msgspec.msgpack.Decoder(Result)


def decode_result(data: bytes) -> Result:
    """Decode a RESULT frame; raises ProtocolError for one that isn't or that says no, or two, ways it ended."""
    try:
        result = _result_decoder().decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a result: {error}") from error
    if (result.exit_code is None) == (result.signal is None):
        raise ProtocolError("a result must have an exit code or a signal, and not both")
    if not _is_json(result.value, MAX_VALUE_DEPTH) or not _is_json(result.duration_s, 0):
        raise ProtocolError("a result's value is not plain JSON data")
    return result


def _is_json(value: Any, depth: int) -> bool:
    """Whether it is what JSON can say, at most `depth` deep: msgpack also has bytes, NaN, and names of any kind."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(name, str) and _is_json(each, depth - 1) for name, each in value.items())
    if isinstance(value, list):
        return depth > 0 and all(_is_json(each, depth - 1) for each in value)
    return value is None or isinstance(value, str | int)


def require_same_major(version: str | None) -> None:
    """Raise ProtocolError unless a peer's version can be talked to."""
    if version is None or version.partition(".")[0] != PROTOCOL.partition(".")[0]:
        said = "no protocol version" if version is None else f"protocol version {version[:20]!r}"
        raise ProtocolError(f"the other side says {said}, this one speaks {PROTOCOL}", hint="update the older of them")


def is_run_id(text: str) -> bool:
    """True for what may name a run: 8 to 64 lower-case letters, digits and dashes, the first no dash."""
    return _RUN_ID.fullmatch(text) is not None


_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{7,63}")


def require_run_id(text: str) -> str:
    """Return a run's id; raises UsageError for what can't be one."""
    if not is_run_id(text):
        raise UsageError(f"{text[:80]!r} is not a run id", hint="8 to 64 lower-case letters, digits and dashes")
    return text
