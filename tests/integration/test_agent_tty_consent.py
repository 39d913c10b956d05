"""Consent: where a grant asks for it, no terminal opens before a person on the host has said yes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from opsexec import AgentRpc, Exec, Tty
from opsexec.errors import CapabilityDenied, ConsentDenied, StepFailed, UsageError
from opsexec.executor import TtySession
from opsexec.rpc_terminals import Question
from tests.integration.conftest import require_root
from tests.parts.agent_terminals import Viewer, read_all, read_until, rpc, shell
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.process_tree import processes_with_argument
from tests.parts.unix_user import current_user, unix_user
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
ME = f"unix:{current_user()}"


@pytest.fixture(scope="module")
def bystander() -> Iterator[str]:
    """A user with a grant, who is not asked."""
    require_root()
    with unix_user() as name:
        yield name


@pytest.fixture
def asking(plain_user: str, bystander: str) -> Iterator[OpsAgent]:
    """An agent where terminals of this user take a yes of `plain_user`, who has no grant of their own."""
    grants = [
        {"principal": ME, "capabilities": EVERYTHING, "consent": "ask"},
        {"principal": f"unix:{bystander}", "capabilities": EVERYTHING},
    ]
    tables = f'[consent]\nusers = ["unix:{plain_user}"]\ntimeout_s = 20'
    with OpsAgent(grants, mode="0666", tables=tables) as running:
        yield running


async def question(person: AgentRpc) -> Question:
    """The one question that waits for this person."""
    async with asyncio.timeout(10):
        while not (found := await person.terminals.questions(5)):
            continue
    (only,) = found
    return only


def consents(agent: OpsAgent) -> list[tuple[str, str]]:
    return [
        (line["decision"], line["principal"])
        for line in agent.records()
        if line["step"] and line["step"]["type"] == "tty.consent"
    ]


async def test_a_yes_opens_it_and_the_person_sees_it_and_can_end_it(asking: OpsAgent, plain_user: str) -> None:
    async with rpc(asking) as ex, rpc(asking, user=plain_user) as person:
        notes: list[str] = []
        ex.on_note = notes.append
        terminal = await ex.open_tty(shell("echo up; trap '' HUP TERM INT; sleep 66.0201"))
        asked = await question(person)
        assert asked.principal == ME
        assert asked.step["argv"][2].endswith("sleep 66.0201")
        assert not processes_with_argument("66.0201")
        await person.terminals.answer(asked.run, True)
        await read_until(terminal, b"up")
        viewer = Viewer()
        task = viewer.watch(person, asked.run)
        await eventually(lambda: b"up" in viewer.seen, within_s=20, what="the person to see it")
        await person.signal(asked.run, "end")
        with pytest.raises(StepFailed, match=f"ended by unix:{plain_user}"):
            await terminal.wait()
        await asyncio.wait_for(task, 20)
    assert not processes_with_argument("66.0201")
    assert "is asked" in notes[0]
    assert f"unix:{plain_user} said yes" in notes[1]
    assert consents(asking) == [("allow", f"unix:{plain_user}"), ("allow", ME)]


async def test_a_yes_is_to_the_terminal_that_was_shown_whatever_else_has_its_run_id(plain_user: str) -> None:
    """The id is the caller's choice, and is used twice once others have pushed it out of those that are remembered."""
    forgetful = "import agent.desk, agent.cli, sys; agent.desk.REMEMBERED_RUNS = 3; sys.exit(agent.cli.main())"
    grants = [{"principal": ME, "capabilities": EVERYTHING, "consent": "ask"}]
    tables = f'[consent]\nusers = ["unix:{plain_user}"]\ntimeout_s = 20'
    with OpsAgent(grants, mode="0666", tables=tables, program=("-c", forgetful)) as agent:
        async with rpc(agent) as ex, rpc(agent, user=plain_user) as person:
            ex._next_run = "harmless"
            terminal = await ex.open_tty(Tty(argv=("/usr/bin/uptime",)))
            assert (await question(person)).run == "harmless"
            await _gone(terminal)
            for _ in range(4):
                assert (await ex.run(Exec(["/bin/true"]))).ok
            ex._next_run = "harmless"
            instead = await ex.open_tty(shell("echo $((40 + 2))"))
            with pytest.raises(ConsentDenied, match="asked about another terminal as harmless"):
                await asyncio.wait_for(instead.wait(), 10)
            with pytest.raises(UsageError, match="no question"):
                await person.terminals.answer("harmless", True)
        assert ("deny", ME) in consents(agent)


async def test_a_no_is_a_typed_denial_and_nothing_ran(asking: OpsAgent, plain_user: str) -> None:
    async with rpc(asking) as ex, rpc(asking, user=plain_user) as person:
        terminal = await ex.open_tty(shell("sleep 66.0202"))
        await person.terminals.answer((await question(person)).run, False)
        with pytest.raises(ConsentDenied, match=f"unix:{plain_user} said no"):
            await terminal.wait()
        assert await read_all(terminal) == b""
    assert not processes_with_argument("66.0202")
    assert consents(asking)[-1] == ("deny", ME)
    assert asking.records()[-1]["outcome"]["error"] == "consent"


async def test_no_answer_is_a_no(asking: OpsAgent, plain_user: str) -> None:
    asking.tables = asking.tables.replace("timeout_s = 20", "timeout_s = 0.5")
    asking.write_config([{"principal": ME, "capabilities": EVERYTHING, "consent": "ask"}])
    asking.end()
    asking.start()
    async with rpc(asking) as ex:
        terminal = await ex.open_tty(shell("sleep 66.0203"))
        with pytest.raises(ConsentDenied, match=r"nobody on the host answered within 0\.5 s"):
            await terminal.wait()
        assert (await ex.run(Exec(["true"]))).ok  # only terminals are asked about
    assert consents(asking) == [("deny", ME)]


async def test_nobody_answers_but_who_is_asked(asking: OpsAgent, plain_user: str, bystander: str) -> None:
    async with rpc(asking) as ex, rpc(asking, user=bystander) as other, rpc(asking, user=plain_user) as person:
        terminal = await ex.open_tty(Tty(argv=("/bin/cat",)))
        run = (await question(person)).run
        for one in (ex, other):
            with pytest.raises(CapabilityDenied, match="is not asked for consent"):
                await one.terminals.answer(run, True)
            with pytest.raises(CapabilityDenied, match="is not asked for consent"):
                await one.terminals.questions()
        with pytest.raises(UsageError, match="no question of the run another-run"):
            await person.terminals.answer("another-run", True)
        await person.terminals.answer(run, True)
        with pytest.raises(UsageError, match="no question"):
            await person.terminals.answer(run, True)
        await terminal.write(b"x\r")
        await read_until(terminal, b"x\r\nx\r\n")
        await terminal.aclose()


async def test_who_is_asked_gets_nothing_else_by_it(asking: OpsAgent, plain_user: str, bystander: str) -> None:
    """No step, no run, and no terminal that nobody asked them about."""
    async with rpc(asking, user=bystander) as other, rpc(asking, user=plain_user) as person:
        terminal = await other.open_tty(Tty(argv=("/bin/cat",)))
        await terminal.write(b"x\r")
        await read_until(terminal, b"x\r\nx\r\n")
        (run,) = [each.run for each in await other.terminals.kept()]
        with pytest.raises(CapabilityDenied):
            await Viewer().watch(person, run)
        with pytest.raises(CapabilityDenied):
            await person.signal(run, "end")
        for asked in (person.run(Exec(["true"])), person.runs(), person.whoami(), person.terminals.kept()):
            with pytest.raises(CapabilityDenied, match="has no grant"):
                await asked
        mine = await person.open_tty(Tty(argv=("/bin/cat",)))
        with pytest.raises(CapabilityDenied, match="has no grant"):
            await mine.wait()
        await terminal.aclose()


async def test_a_caller_that_leaves_takes_the_question_back(asking: OpsAgent, plain_user: str) -> None:
    async with rpc(asking, user=plain_user) as person:
        async with rpc(asking) as ex:
            terminal = await ex.open_tty(shell("sleep 66.0204"))
            run = (await question(person)).run
            await _gone(terminal)
        with pytest.raises(UsageError, match="no question"):
            await person.terminals.answer(run, True)
        assert await person.terminals.questions() == []
    shown = [line["step"]["runs"] for line in asking.records() if (line["step"] or {}).get("type") == "consent.list"]
    assert shown[-2:] == [[run], []]
    assert not processes_with_argument("66.0204")


async def _gone(terminal: TtySession) -> None:
    await asyncio.wait_for(terminal.aclose(), 10)


async def test_consent_for_all_asks_under_every_grant(plain_user: str) -> None:
    grants = [{"principal": ME, "capabilities": EVERYTHING}]
    tables = f'[consent]\nusers = ["unix:{plain_user}"]\nalways = true'
    with OpsAgent(grants, mode="0666", tables=tables) as agent:
        async with rpc(agent) as ex, rpc(agent, user=plain_user) as person:
            terminal = await ex.open_tty(Tty(argv=("/bin/true",)))
            await person.terminals.answer((await question(person)).run, True)
            assert (await terminal.wait()).exit_code == 0


async def test_who_asks_can_not_answer_themselves(plain_user: str) -> None:
    """Also where the config names them: with nobody else to ask, the answer is no."""
    grants = [
        {"principal": ME, "capabilities": EVERYTHING},
        {"principal": f"unix:{plain_user}", "capabilities": ["tty:/bin/cat"], "consent": "ask"},
    ]
    tables = f'[consent]\nusers = ["{ME}", "unix:{plain_user}"]\ntimeout_s = 5'
    with OpsAgent(grants, mode="0666", tables=tables) as agent:
        async with rpc(agent, user=plain_user) as ex, rpc(agent) as person:
            terminal = await ex.open_tty(Tty(argv=("/bin/cat",)))
            run = (await question(person)).run
            assert await ex.terminals.questions() == []
            with pytest.raises(UsageError, match="no question"):
                await ex.terminals.answer(run, True)
            await person.terminals.answer(run, False)
            with pytest.raises(ConsentDenied):
                await terminal.wait()
