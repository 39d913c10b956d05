"""Between a tool's call and the launcher: each question goes out as a line, and its answer comes back as one.

Lines in: `{"answer": ASK, "status", "proposal", "reason"}`, `{"decided": PROPOSAL, "status", "reason"}`,
`{"routes": [...]}`. The launcher keeps the queue, counts, and decides; what this process holds may be lost.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from bottle.sidecars.supervise.said import say

ANSWER_S = 10.0
MAX_ASKS = 8
PACE_S = 0.05
"""Between two questions: what an agent can make its launcher do has a bound."""

MAX_REMEMBERED = 256
PENDING = "pending"


class Desk:
    """`routes`: what the agent's egress lets out now, as the launcher told it."""

    def __init__(self, wait_s: float, routes: tuple[dict[str, Any], ...]) -> None:
        self.routes = routes
        self._wait_s = wait_s
        self._next = 1
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._known: dict[int, dict[str, Any]] = {}
        self._changed = asyncio.Condition()
        self._pace = asyncio.Lock()

    async def propose(self, kind: str, candidate: dict[str, Any], why: str) -> dict[str, Any]:
        """Hand a proposal to the operator's queue, wait for a decision, and return where it stands then."""
        if len(self._asked) >= MAX_ASKS:
            return {"status": "refused", "reason": f"over {MAX_ASKS} questions at once"}
        ask, self._next = self._next, self._next + 1
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[ask] = answered
        try:
            async with self._pace:
                await asyncio.sleep(PACE_S)
            say({"event": "ask", "ask": ask, "kind": kind, "candidate": candidate, "why": why})
            async with asyncio.timeout(ANSWER_S):
                answer = await answered
        except TimeoutError:
            return {"status": "unavailable", "reason": "the launcher doesn't answer; nothing is granted"}
        finally:
            del self._asked[ask]
        proposal = answer.pop("proposal", None)
        if not isinstance(proposal, int):
            return answer
        self._remember(proposal, answer)
        return await self.status(proposal)

    async def status(self, proposal: int) -> dict[str, Any]:
        """Return where a proposal stands, after a decision or after the wait."""
        if proposal not in self._known:
            return {"status": "unknown", "reason": "no such proposal of this bottle's is known here"}
        try:
            async with asyncio.timeout(self._wait_s), self._changed:
                await self._changed.wait_for(lambda: self._known[proposal]["status"] != PENDING)
        except TimeoutError:
            pass  # it stays queued, which is what the answer says
        return {"proposal": proposal, **self._known[proposal]}

    async def news(self, line: bytes) -> None:
        """Take one line of the launcher's."""
        told = json.loads(line)
        if "answer" in told:
            waiting = self._asked.get(told.pop("answer"))
            if waiting is not None and not waiting.done():
                waiting.set_result(told)
        elif "decided" in told:
            async with self._changed:
                self._remember(told.pop("decided"), told)
                self._changed.notify_all()
        elif "routes" in told:
            self.routes = tuple(told["routes"])

    def _remember(self, proposal: int, told: dict[str, Any]) -> None:
        if told.get("status") == PENDING and proposal in self._known:
            return  # a decision was quicker than the answer
        self._known[proposal] = told
        while len(self._known) > MAX_REMEMBERED:
            del self._known[min(self._known)]
