"""An attendant without a bottle around it: a policy, a queue on disk, and what it tells the daemon."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from bottle.egress import EffectiveRoute
from bottle.operator.attendant import Attendant
from bottle.operator.candidate import Candidate, read_candidate
from bottle.operator.live import LivePolicy
from bottle.operator.queue import Decision, Queue, new_nonce

API = EffectiveRoute("api.test", ("/v1",), "Bearer", "EGRESS_TOKEN_0", False, ("127.0.0.7/32",), "manifest")
OPEN = EffectiveRoute("open.test", None, None, None, False, (), "manifest", ("GET", "HEAD"), ("page",))
MODEL = EffectiveRoute("model.test", None, "Bearer", "EGRESS_TOKEN_1", True, (), "provider")
POLICY = LivePolicy((API, OPEN, MODEL))


def route(host: str, *paths: str) -> Candidate:
    """A proposed route."""
    return read_candidate("route", {"host": host, "path_allowlist": list(paths) or None})


class Kept:
    """An audit in a list."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, record: Any) -> object:
        """Keep it."""
        self.records.append(dict(record))
        return None


def attended(place: Path, policy: LivePolicy = POLICY) -> tuple[Attendant, list[dict[str, Any]]]:
    """An attendant, and what it tells the daemon."""
    told: list[dict[str, Any]] = []
    attendant = Attendant("worker-00000001", Queue(place), policy, Kept(), lambda _: None, lambda _: None)
    attendant.attach(lambda line: told.append(json.loads(line)))
    return attendant, told


def ask(attendant: Attendant, host: str, *paths: str) -> Any:
    """Propose a route; what is kept of it."""
    body = {"host": host, "path_allowlist": list(paths) or None}
    attendant.take({"event": "ask", "ask": 1, "kind": "route", "candidate": body, "why": "w"})
    return Queue(attendant_place(attendant)).proposals()[-1]


def attendant_place(attendant: Attendant) -> Path:
    """Where its bottle is."""
    return attendant.queue.place.parent


def decide(
    attendant: Attendant, proposal: Any, *, approve: bool, apply: Any = None, **other: Any
) -> tuple[bool, str] | None:
    """Decide as the command does, let the attendant carry it out, and return the outcome."""

    async def nothing(_: LivePolicy) -> None:
        return None

    queue = Queue(attendant_place(attendant))
    fields = {
        "number": proposal.number, "candidate": proposal.candidate.digest, "policy": attendant.policy.digest, **other,
    }  # fmt: skip
    decision = Decision(nonce=new_nonce(), approve=approve, **fields)
    queue.decide(decision)
    asyncio.run(attendant.carry_out_what_is_there(apply or nothing))
    return queue.outcome(decision)
