"""An Events step out of a query string, for a caller like curl."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qsl

import msgspec

from opsexec.errors import UsageError
from opsexec.steps.events import Events
from opsexec.steps.registry import encode_step
from opsexec.wire import StepRequest

KEYS = ("names", "interval", "count")
MAX_DIGITS = 12


def events_request(query: str) -> StepRequest:
    """Return the request that a query string stands for; raises UsageError, and BadStep for unknown names."""
    found: dict[str, str] = {}
    for key, value in parse_qsl(query[:4096], keep_blank_values=True):
        if key not in KEYS or key in found:
            raise UsageError(f"{key[:40]!r} is unknown or stands twice", hint="use names, interval and count")
        found[key] = value
    names = tuple(found["names"].split(",")) if found.get("names") else ()
    interval, count = _number(found.get("interval", "5")), found.get("count")
    step = Events(names=names, interval_s=interval, count=None if count is None else int(_number(count)))
    return StepRequest(run=secrets.token_hex(8), step=msgspec.Raw(encode_step(step)))


def _number(text: str) -> float:
    if not text.isascii() or len(text) > MAX_DIGITS or not text.replace(".", "", 1).isdigit():
        raise UsageError(f"{text[:40]!r} is not a number", hint="like interval=5 or count=10")
    return float(text)
