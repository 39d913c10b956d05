"""Consent: where a grant says so, a person on the host is asked before a terminal opens. No answer is a no."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opsexec.errors import ConsentDenied, UsageError

if TYPE_CHECKING:
    from agent.asker import Asker
    from agent.config import Config

MAX_PENDING = 64
"""Questions that may wait for an answer at once."""

ASKED_S = 7200.0
"""Seconds that the run id of a question stands for that one alone: a person who has read it may answer late."""

MAX_ASKED = 1000
"""Questions of one principal in that time."""


def oversees(config: Config, listener: str, principal: str | None) -> bool:
    """True for who may be asked: a user of this host that the config names, at a unix socket of its own."""
    return principal in config.consent.users and listener.startswith("unix:")


def overseers(config: Config, principal: str) -> frozenset[str]:
    """Return who may answer for a principal's terminal: never the principal itself."""
    return frozenset(config.consent.users) - {principal}


class Question:
    """One terminal that waits for a yes."""

    def __init__(self, run: str, asker: Asker, step: Mapping[str, Any], asked: frozenset[str], within_s: float) -> None:
        self.run = run
        self.principal = asker.principal
        self.listener = asker.listener
        self.step = step
        self.overseers = asked
        self.begun = time.time()
        self.until = self.begun + within_s
        self.answer: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()

    def shown(self) -> dict[str, Any]:
        """Return what the person is told."""
        return {
            "run": self.run,
            "principal": self.principal,
            "listener": self.listener,
            "step": dict(self.step),
            "begun": self.begun,
            "until": self.until,
        }


class Consents:
    """The questions of one agent."""

    def __init__(self) -> None:
        self.pending: dict[str, Question] = {}
        self._before: dict[str, tuple[float, str]] = {}
        self._asked = asyncio.Event()

    async def ask(self, question: Question, within_s: float) -> str:
        """Wait for an answer and return who said yes; raises ConsentDenied for a no, and for none in time."""
        if not question.overseers:
            raise ConsentDenied(
                "nobody but the one who asks could be asked for consent", hint="name more consent.users"
            )
        if len(self.pending) >= MAX_PENDING:
            raise ConsentDenied(f"{MAX_PENDING} questions wait for an answer already", hint="ask again later")
        self._require_new(question)
        self.pending[question.run] = question
        self._asked.set()
        self._asked = asyncio.Event()
        try:
            async with asyncio.timeout(within_s):
                said_yes, who = await question.answer
        except TimeoutError as error:
            text = f"nobody on the host answered within {within_s:g} s, which is a no"
            raise ConsentDenied(text, hint="ask the person there to watch `ops-agent consent`") from error
        finally:
            del self.pending[question.run]
        if not said_yes:
            raise ConsentDenied(f"{who} said no", hint="talk to them")
        return who

    def _require_new(self, question: Question) -> None:
        """Raise ConsentDenied for a run id that somebody was asked about: their yes would be to the other terminal."""
        now = asyncio.get_running_loop().time()
        while self._before and now - next(iter(self._before.values()))[0] > ASKED_S:
            del self._before[next(iter(self._before))]
        if question.run in self._before:
            text = f"somebody was asked about another terminal as {question.run}"
            raise ConsentDenied(text, hint="choose another run id")
        if sum(who == question.principal for _, who in self._before.values()) >= MAX_ASKED:
            text = f"{question.principal} has asked {MAX_ASKED} times in {ASKED_S / 3600:g} hours"
            raise ConsentDenied(text, hint="ask again later")
        self._before[question.run] = (now, question.principal)

    def question(self, run: str, principal: str) -> Question:
        """Return a question that this principal may answer; raises UsageError for any other."""
        found = self.pending.get(run)
        if found is None or principal not in found.overseers or found.answer.done():
            raise UsageError(f"no question of the run {run} waits for you", hint="see `ops-agent consent`")
        return found

    def of(self, principal: str) -> list[Question]:
        """Return the questions this principal may answer, the oldest first."""
        return [each for each in self.pending.values() if principal in each.overseers]

    async def asked(self, within_s: float) -> None:
        """Wait until something is asked, so many seconds at most."""
        try:
            async with asyncio.timeout(within_s):
                await self._asked.wait()
        except TimeoutError:
            return
