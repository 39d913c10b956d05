"""Questions of consent are bounded, and a yes is to the terminal that it was asked about."""

from __future__ import annotations

import asyncio

import pytest

from agent.asker import Asker
from agent.tty.consent import ASKED_S, MAX_ASKED, MAX_PENDING, Consents, Question
from opsexec.errors import ConsentDenied

pytestmark = pytest.mark.anyio
PERSON = "unix:root"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def question(run: str, principal: str = "unix:dev") -> Question:
    return Question(run, Asker(principal, "unix:/run/agent.sock", []), {}, frozenset((PERSON,)), 60)


async def answered(consents: Consents, asked: Question) -> str:
    """Ask, with the yes there already."""
    asked.answer.set_result((True, PERSON))
    return await consents.ask(asked, 60)


async def test_one_principal_asks_so_often_in_two_hours_and_another_still_may(monkeypatch: pytest.MonkeyPatch) -> None:
    consents = Consents()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(MAX_ASKED):
        assert await answered(consents, question(f"r{number}")) == PERSON
    with pytest.raises(ConsentDenied, match=f"unix:dev has asked {MAX_ASKED} times in 2 hours"):
        await answered(consents, question("one-more"))
    assert await answered(consents, question("anothers", "unix:other")) == PERSON
    with pytest.raises(ConsentDenied, match="somebody was asked about another terminal as r0"):
        await answered(consents, question("r0", "unix:other"))
    monkeypatch.setattr(loop, "time", lambda: begun + ASKED_S + 60)
    assert await answered(consents, question("one-more")) == PERSON
    assert await answered(consents, question("r0")) == PERSON


async def test_so_many_questions_wait_at_once_and_one_that_ended_makes_room() -> None:
    consents = Consents()
    waiting = [question(f"r{number}") for number in range(MAX_PENDING)]
    tasks = [asyncio.ensure_future(consents.ask(each, 60)) for each in waiting]
    await asyncio.sleep(0)
    assert len(consents.of(PERSON)) == MAX_PENDING
    with pytest.raises(ConsentDenied, match=f"{MAX_PENDING} questions wait for an answer already"):
        await answered(consents, question("one-more"))
    waiting[0].answer.set_result((False, PERSON))
    with pytest.raises(ConsentDenied, match="said no"):
        await tasks[0]
    assert await answered(consents, question("one-more")) == PERSON
    for each in waiting[1:]:
        each.answer.set_result((True, PERSON))
    assert await asyncio.gather(*tasks[1:]) == [PERSON] * (MAX_PENDING - 1)
    assert consents.pending == {}
