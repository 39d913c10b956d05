"""What is answered and what is told: sidecars' names, and of everything else each name once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bottle.sidecars.dns.message import (
    ANY,
    AXFR,
    IN,
    IXFR,
    MAILA,
    MAILB,
    NOERROR,
    NXDOMAIN,
    REFUSED,
    NotAQuery,
    Query,
    answer,
    read_query,
)
from bottle.sidecars.egress import search
from opsexec.far.known_values import KnownValues

QUESTIONS_A_SECOND, QUESTIONS_AT_ONCE = 500.0, 1000.0
TOLD_A_SECOND, TOLD_AT_ONCE = 1.0, 50.0
MAX_TOLD = 2000
"""Names that one bottle's answerer tells of in its whole life: an audit that an agent fills at will tells nothing."""

_REFUSED = frozenset({IXFR, AXFR, MAILB, MAILA, ANY})


class Allowance:
    """So many at once, and so many a second after that."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self) -> bool:
        """True where there is one left."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Answerer:
    """`names`: a sidecar's name -> its addresses. `known`: values that no line may show. `say`: takes an event."""

    def __init__(
        self,
        bottle: str,
        names: Mapping[str, Iterable[str]],
        known: Iterable[tuple[str, str]],
        say: Callable[[dict[str, Any]], None],
        clock: Callable[[], float],
    ) -> None:
        self._bottle = bottle
        self._names = {tuple(name.lower().encode().split(b".")): tuple(found) for name, found in names.items()}
        self._known = KnownValues(dict(known))
        self._say = say
        self._questions = Allowance(QUESTIONS_A_SECOND, QUESTIONS_AT_ONCE, clock)
        self._telling = Allowance(TOLD_A_SECOND, TOLD_AT_ONCE, clock)
        self._told: set[tuple[str, str]] = set()
        self._left_out = 0

    def answer(self, data: bytes) -> bytes | None:
        """Return what is answered to a message, None for silence. Nothing is looked up anywhere for it."""
        if not self._questions.take():
            return None
        try:
            query = read_query(data)
        except NotAQuery as error:
            self._tell("-", "-", "no readable question")
            return error.answer
        if query.group != IN or query.kind in _REFUSED:
            self._tell(self._shown(query), query.kind_name, "only addresses are asked for here")
            return answer(query, REFUSED)
        found = self._names.get(query.labels)
        if found is None:
            self._tell(self._shown(query), query.kind_name, "the bottle's resolver knows its sidecars alone")
            return answer(query, NXDOMAIN)
        return answer(query, NOERROR, found)

    def _shown(self, query: Query) -> str:
        """Return the name for a line: whole, unless it holds a value of the bottle, however that is spelled."""
        asked = b".".join(query.labels)
        names = (asked, asked.replace(b".", b""), asked.upper(), asked.replace(b".", b"").upper())
        leak = next((found for found in (search.find(self._known, each) for each in names) if found is not None), None)
        return query.name if leak is None else f"(holds the value of {leak})"

    def _tell(self, name: str, kind: str, reason: str) -> None:
        if (name, kind) in self._told:
            return
        if len(self._told) >= MAX_TOLD or not self._telling.take():
            self._left_out += 1
            return
        self._told.add((name, kind))
        event: dict[str, Any] = {"event": "dns", "bottle": self._bottle, "decision": "deny", "reason": reason}
        event |= {"host": name, "kind": kind}
        if self._left_out:
            event["left_out"], self._left_out = self._left_out, 0
        if len(self._told) == MAX_TOLD:
            event["reason"] = f"{reason}; no further name is told of"
        self._say(event)
