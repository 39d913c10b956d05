"""Questions of consent are bounded, and a yes is to the terminal that it was asked about."""

from __future__ import annotations

import asyncio

import pytest

from agent.asker import Asker
from agent.config import parse_config
from agent.tty.consent import ASKED_S, MAX_ASKED, MAX_PENDING, Consents, Question, overseers, oversees
from opsexec.errors import ConsentDenied, UsageError

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


async def test_a_question_is_answered_by_who_is_asked_alone_and_once() -> None:
    consents = Consents()
    asked = question("r")
    asking = asyncio.ensure_future(consents.ask(asked, 60))
    await asyncio.sleep(0)
    for run, who in (("r", "unix:dev"), ("r", "unix:daemon"), ("another", PERSON)):
        with pytest.raises(UsageError, match="waits for you"):
            consents.question(run, who)
    assert (consents.of("unix:dev"), consents.of(PERSON)) == ([], [asked])
    consents.question("r", PERSON).answer.set_result((True, PERSON))
    with pytest.raises(UsageError, match="waits for you"):
        consents.question("r", PERSON)
    assert await asking == PERSON
    with pytest.raises(UsageError, match="waits for you"):
        consents.question("r", PERSON)


async def test_where_nobody_can_be_asked_or_nobody_answers_it_is_a_no() -> None:
    consents = Consents()
    nobodys = Question("r", Asker("unix:dev", "unix:/run/agent.sock", []), {}, frozenset(), 60)
    with pytest.raises(ConsentDenied, match="nobody but the one who asks"):
        await answered(consents, nobodys)
    with pytest.raises(ConsentDenied, match=r"nobody on the host answered within 0\.01 s, which is a no"):
        await consents.ask(question("r"), 0.01)
    assert consents.pending == {}


def test_who_is_asked_is_who_the_config_names_at_a_unix_socket_and_never_who_asks() -> None:
    config = parse_config(
        '[agent]\nlisten = ["unix:/run/a/a.sock"]\nstate_dir = "/var/lib/a"\n'
        '[consent]\nusers = ["unix:root", "unix:daemon"]\n'
    )
    here = "unix:/run/a/a.sock"
    assert oversees(config, here, "unix:root")
    assert not any(oversees(config, here, who) for who in ("unix:dev", "root", None))
    assert not any(oversees(config, other, "unix:root") for other in ("bottle:web:/run/b.sock", "tailnet:7227"))
    assert overseers(config, "unix:root") == {"unix:daemon"}
    assert overseers(config, "unix:dev") == {"unix:root", "unix:daemon"}
