"""What a plan asks of the supervise daemon, and what the launcher's environment says of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bottle.operator.attendant import told_routes
from bottle.operator.live import live_policy
from bottle.plan import SUPERVISE_PORT, BottlePlan
from opsexec.errors import UsageError

DAEMON = "supervise"
VARIABLE = "SUPERVISE_RESPONSE_TIMEOUT_SECONDS"
WAIT_S = 30.0
MAX_WAIT_S = 600.0
REBUILDS = frozenset({"bwrap", "docker"})
"""Backends on which a bottle can be rebuilt with another plan and resumed."""


def configuration(plan: BottlePlan, socket: str) -> dict[str, Any]:
    """Return what the daemon reads first on its stdin. No secret is in it, nor where one comes from."""
    offered = ["route", "pipelock", *(["capability"] if plan.backend in REBUILDS else [])]
    return {
        "socket": socket,
        "door": plan.door(SUPERVISE_PORT),
        "wait_s": plan.supervise_wait_s,
        "offered": offered,
        "routes": told_routes(live_policy(plan)),
    }


def wait_s(environ: Mapping[str, str]) -> float:
    """Return how long one call waits for a decision, in seconds; raises UsageError for a value that is no such time."""
    text = environ.get(VARIABLE)
    if text is None:
        return WAIT_S
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not text.isascii() or "_" in text or not 0 < found <= MAX_WAIT_S:  # false for nan
        hint = f"a number of seconds up to {MAX_WAIT_S:g}; without it {WAIT_S:g}"
        raise UsageError(f"{VARIABLE}={text[:40]!r} is no time to wait", hint=hint)
    return found
