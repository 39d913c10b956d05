"""One line of the audit: its fields, its canonical bytes and its hash.

A line is one JSON object in canonical form, then a newline. Canonical form: UTF-8; the members of every
object sorted by the code points of their names; no whitespace between tokens; in strings only `"`, `\\` and
U+0000 to U+001F are escaped (the two-character escapes where JSON has one, else `\\u00xx` in lower case);
integers in plain decimal; other numbers in the shortest form that reads back as the same IEEE 754 double.

The hash is sha256 over the canonical form without the member `hash`, in lower-case hex. Since `decision` and
`hash` sort before every other member, that is the line without its newline and without the first
`"hash":"..."` and the comma after it: a verifier needs no JSON writer of its own. `prev` is the hash of the
line before; 64 zeros in the very first line.

Every line has all the members of FIELDS and `seq` (0, 1, 2, ...), `ts` (RFC 3339, UTC, microseconds), `prev`,
`hash`; what doesn't apply is null. Lines that the log itself adds have a `step.type` from MAINTENANCE and no
decision.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from opsexec.errors import AuditUnavailable

GENESIS = "0" * 64
FIELDS = frozenset(
    ("host", "listener", "principal", "step", "requires", "decision", "layer", "reason", "run", "outcome")
)
ROTATE = "audit.rotate"
REPAIR = "audit.repair"
MAINTENANCE = frozenset((ROTATE, REPAIR))

MAX_LINE_BYTES = 1 << 20
MAX_DEPTH = 32
# Beyond this a reader that keeps numbers as doubles sees another number (RFC 7493, section 2.2).
MAX_INTEGER = (1 << 53) - 1

_EMPTY: dict[str, Any] = dict.fromkeys(FIELDS)
_HASH_AT = {
    None: len(b'{"decision":null,'),
    "allow": len(b'{"decision":"allow",'),
    "deny": len(b'{"decision":"deny",'),
}
_HASHED = re.compile(rb'(\{"decision":(?:"allow"|"deny"|null),)"hash":"([0-9a-f]{64})",')
_encoder = msgspec.json.Encoder(order="sorted")


class BadRecord(AuditUnavailable):
    """A record that can't be written as it stands; redact it, or turn it into plain JSON data."""

    code = "audit_record"


class AuditBroken(AuditUnavailable):
    """The log on disk isn't the chain it says it is; nothing is appended to it."""

    code = "audit_broken"


class AuditEntry(msgspec.Struct, frozen=True):
    """Where a record landed: its sequence number (from 0) and its hash (64 hex digits)."""

    seq: int
    hash: str


class Line(msgspec.Struct, frozen=True):
    """What the chain needs to know of a line; the rest stays unread."""

    seq: int
    prev: str
    hash: str


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a line raises that the log didn't write: it isn't JSON, not UTF-8, or nested without end."""

_line_decoder = msgspec.json.Decoder(Line)


class _Envelope(msgspec.Struct, frozen=True):
    step: Any = None


_envelope_decoder = msgspec.json.Decoder(_Envelope)


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with every field present; raises BadRecord for what isn't plain JSON data."""
    if not record.keys() <= FIELDS:
        unknown = ", ".join(sorted(map(repr, record.keys() - FIELDS)))
        raise BadRecord(f"an audit record has no field {unknown}", hint=f"its fields are {', '.join(sorted(FIELDS))}")
    fields = {**_EMPTY, **record}
    decision = fields["decision"]
    if decision is not None and decision != "allow" and decision != "deny":
        raise BadRecord(f"an audit decision is allow, deny or absent, not {type(decision).__name__} data")
    step = fields["step"]
    if type(step) is dict and step.get("type") in MAINTENANCE:
        raise BadRecord(f"the step type {step['type']} is the audit log's own", hint="give the step another type")
    if not is_plain(fields.values(), MAX_DEPTH):
        raise _why_not_plain(fields, "record", MAX_DEPTH)
    return fields


def is_plain(values: Iterable[Any], depth: int) -> bool:
    """Whether all are plain JSON data at most `depth` deep; it builds no message, for speed."""
    for value in values:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if kind is int:
            if not -MAX_INTEGER <= value <= MAX_INTEGER:
                return False
        elif kind is float:
            if not math.isfinite(value):
                return False
        elif not depth:
            return False
        elif kind is list or kind is tuple:
            if not is_plain(value, depth - 1):
                return False
        elif kind is dict:
            for name in value:
                if type(name) is not str:
                    return False
            if not is_plain(value.values(), depth - 1):
                return False
        else:
            return False
    return True


def _why_not_plain(value: Any, where: str, depth: int) -> BadRecord:
    """Return the error for a value that `is_plain` has refused, naming the first member to blame."""
    kind = type(value)
    if kind is int:
        return BadRecord(f"{where} is an integer beyond 2**53", hint="write it as a text")
    if kind is float:
        return BadRecord(f"{where} is not a finite number", hint="leave it out, or write it as a text")
    if kind is not dict and kind is not list and kind is not tuple:
        what = f"{kind.__module__}.{kind.__qualname__}"
        return BadRecord(f"{where} is a {what}, not plain JSON data", hint="redact the record first")
    if depth < 0:
        return BadRecord(f"{where[:80]}... is nested more than {MAX_DEPTH} deep", hint="record a digest instead")
    if kind is dict:
        for name in value:
            if type(name) is not str:
                return BadRecord(f"{where} has a {type(name).__name__} for a member name", hint="names are texts")
    members = value.items() if kind is dict else enumerate(value)
    name, culprit = next((name, item) for name, item in members if not is_plain((item,), depth))
    return _why_not_plain(culprit, f"{where}.{name}" if kind is dict else f"{where}[{name}]", depth - 1)


def maintenance(step: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a line that the log adds about itself."""
    return {**_EMPTY, "listener": "audit", "step": step}


def seal(fields: dict[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
    """Return the line with its newline, and its hash; `fields` come from `plain` or `maintenance`."""
    fields["seq"] = seq
    fields["prev"] = prev
    fields["ts"] = _now()
    try:
        body = _encoder.encode(fields)
    except UnicodeEncodeError as error:
        raise BadRecord(
            "an audit record holds text that is not Unicode (a lone surrogate)",
            hint="escape undecodable bytes first",
        ) from error
    if len(body) > MAX_LINE_BYTES - 128:
        raise BadRecord(
            f"an audit record of {len(body)} bytes is too long (at most {MAX_LINE_BYTES})",
            hint="record a digest instead",
        )
    digest = hashlib.sha256(body).hexdigest()
    at = _HASH_AT[fields["decision"]]
    return b"".join((body[:at], b'"hash":"', digest.encode(), b'",', body[at:], b"\n")), digest


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def parse(line: bytes) -> Line | None:
    """Return what the chain needs of a line without its newline; None when it isn't an audit line."""
    try:
        return _line_decoder.decode(line)
    except UNREADABLE:
        return None


def computed_hash(line: bytes) -> str | None:
    """Return the hash that a line without its newline ought to carry; None when it has none in its place."""
    match = _HASHED.match(line)
    return None if match is None else hashlib.sha256(match[1] + line[match.end() :]).hexdigest()


def maintenance_step(line: bytes) -> dict[str, Any] | None:
    """Return the step of a line that the log added about itself, None for every other line.

    Raises ValueError for one that the log would not have written so.
    """
    if b'"type":"audit.' not in line:
        return None
    try:
        step = _envelope_decoder.decode(line).step
    except UNREADABLE as error:
        raise ValueError("not JSON") from error
    if not isinstance(step, dict) or step.get("type") not in (ROTATE, REPAIR):
        return None
    wanted = {"oldest_seq": int} if step["type"] == ROTATE else {"file": str, "sha256": str}
    if any(type(step.get(name)) is not kind for name, kind in wanted.items()):
        raise ValueError(f"a line of type {step['type']} without {', '.join(wanted)}")
    return step
