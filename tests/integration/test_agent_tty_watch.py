"""Watching a terminal: read-only, from its beginning, by who may; a slow viewer holds nobody up."""

from __future__ import annotations

import asyncio
import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import Exec, Tty
from opsexec.errors import CapabilityDenied, RecordingFailed, StepFailed, UsageError
from opsexec.recording_anchors import anchors_in
from opsexec.recording_chain import RecordingForged, verify_recording
from tests.parts.agent_terminals import Viewer, read_all, read_until, rpc, run_of, shell
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.process_tree import processes_with_argument
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
ME = f"unix:{current_user()}"


@pytest.fixture
def shared_agent(plain_user: str) -> Iterator[OpsAgent]:
    """An agent where this user opens terminals, and a plain one reads only runs whose ids begin with `open-`."""
    grants = [
        {"principal": ME, "capabilities": EVERYTHING},
        {"principal": f"unix:{plain_user}", "capabilities": ["run.read:open-*", "tty:/bin/cat"]},
    ]
    with OpsAgent(grants, mode="0666") as running:
        yield running


async def test_several_see_a_terminal_from_its_beginning_and_live(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        terminal = await ex.open_tty(shell("echo one; read -r x; echo two; read -r x", columns=61, rows=17))
        await read_until(terminal, b"one\r\n")
        run = await run_of(ex)
        viewers = [Viewer() for _ in range(3)]
        tasks = [viewer.watch(ex, run) for viewer in viewers]
        await eventually(lambda: all(b"one" in v.seen for v in viewers), within_s=20, what="what was there before")
        terminal.resize(99, 40)
        await terminal.write(b"\r")
        await eventually(lambda: all(b"two" in v.seen for v in viewers), within_s=20, what="what comes live")
        late = Viewer()
        tasks.append(late.watch(ex, run))
        await eventually(lambda: b"two" in late.seen, within_s=20, what="all of it for one who came late")
        await terminal.write(b"\r")
        rest = await read_all(terminal)
        assert await asyncio.gather(*tasks) == [0] * 4
        assert {bytes(v.seen) for v in (*viewers, late)} == {b"one\r\n\r\ntwo\r\n" + rest.partition(b"two\r\n")[2]}
        assert all(v.sizes == [(61, 17), (99, 40)] for v in (*viewers, late))
        ended = Viewer()
        assert await ended.watch(ex, run) == 0
        assert ended.seen == late.seen


async def test_who_may_watch_is_the_one_who_opened_it_and_who_has_run_read(
    shared_agent: OpsAgent, plain_user: str
) -> None:
    async with rpc(shared_agent) as ex, rpc(shared_agent, user=plain_user) as other:
        ex._next_run = "open-to-others"
        shared = await ex.open_tty(Tty(argv=("/bin/cat",)))
        await shared.write(b"x\r")
        await read_until(shared, b"x\r\nx\r\n")
        ex._next_run = "closed-to-others"
        closed = await ex.open_tty(Tty(argv=("/bin/cat",)))
        await closed.write(b"y\r")
        await read_until(closed, b"y\r\ny\r\n")
        viewer = Viewer()
        task = viewer.watch(other, "open-to-others")
        await eventually(lambda: b"x\r\nx\r\n" in viewer.seen, within_s=20, what="the screen")
        with pytest.raises(CapabilityDenied, match=r"run\.read:closed-to-others"):
            await Viewer().watch(other, "closed-to-others")
        with pytest.raises(CapabilityDenied, match=r"run\.read:closed-to-others"):
            await other.terminals.fetch("closed-to-others", io.BytesIO())
        with pytest.raises(CapabilityDenied, match=r"run\.signal:open-to-others"):
            await other.signal("open-to-others", "end")
        with pytest.raises(CapabilityDenied, match=r"run\.read:no-such-run"):
            await Viewer().watch(other, "no-such-run")
        with pytest.raises(UsageError, match="there is no run"):
            await Viewer().watch(ex, "no-such-run")
        assert [each.run for each in await other.terminals.kept()] == ["open-to-others"]
        await shared.aclose()
        await closed.aclose()
        await asyncio.wait_for(task, 20)
        with pytest.raises(CapabilityDenied):
            await Viewer().watch(other, "closed-to-others")  # nor once it has ended


async def test_who_watches_or_follows_is_judged_again_when_the_config_is_read_again(plain_user: str) -> None:
    """One loses `run.read` and is told so; the run's own caller, and the terminal, go on."""
    mine = {"principal": ME, "capabilities": EVERYTHING}
    theirs = f"unix:{plain_user}"
    with OpsAgent([mine, {"principal": theirs, "capabilities": ["run.read:*"]}], mode="0666") as agent:
        async with rpc(agent) as ex, rpc(agent, user=plain_user) as other:
            terminal = await ex.open_tty(Tty(argv=("/bin/cat",)))
            await terminal.write(b"x\r")
            await read_until(terminal, b"x\r\nx\r\n")
            detached = await ex.start(Exec(["/bin/sh", "-c", "echo one; sleep 66.0302"]))
            watching, following, own = Viewer(), Viewer(), Viewer()
            losing = [watching.watch(other, await run_of(ex)), asyncio.create_task(other.attach(detached, following))]
            staying = asyncio.create_task(ex.attach(detached, own))
            await eventually(lambda: all(v.seen for v in (watching, following, own)), within_s=20, what="they see it")
            agent.write_config([mine, {"principal": theirs, "capabilities": ["facts:os"]}])
            agent.send(signal.SIGHUP)
            for each in losing:
                with pytest.raises(CapabilityDenied, match="may not read the run any more"):
                    await asyncio.wait_for(each, 20)
            await terminal.write(b"secret\r")
            await read_until(terminal, b"secret\r\nsecret\r\n")
            assert b"secret" not in watching.seen
            assert not staying.done()
            await ex.signal(detached, "end")
            with pytest.raises(StepFailed):
                await asyncio.wait_for(staying, 20)
            await terminal.aclose()
        denials = [line for line in agent.records() if line["decision"] == "deny"]
        assert [(line["principal"], line["step"]["type"]) for line in denials] == [(theirs, "run.read")] * 2


async def test_a_run_of_the_same_id_opens_nobody_elses_recording(shared_agent: OpsAgent, plain_user: str) -> None:
    """Run ids are their callers' choice, and a restarted agent has forgotten which were used."""
    grants = [
        {"principal": ME, "capabilities": EVERYTHING},
        {"principal": f"unix:{plain_user}", "capabilities": ["exec:**", "tty:**"]},
    ]
    async with rpc(shared_agent) as ex:
        ex._next_run = "closed-to-others"
        terminal = await ex.open_tty(shell("echo secret"))
        await read_all(terminal)
        await terminal.wait()
    shared_agent.write_config(grants)
    shared_agent.end()
    shared_agent.start()
    async with rpc(shared_agent, user=plain_user) as other:
        other._next_run = "closed-to-others"
        task = asyncio.create_task(other.run(Exec(["/bin/sleep", "66.0301"])))
        await eventually(lambda: processes_with_argument("66.0301"), within_s=10, what="the run")
        with pytest.raises(CapabilityDenied):
            await Viewer().watch(other, "closed-to-others")
        with pytest.raises(CapabilityDenied):
            await other.terminals.fetch("closed-to-others", io.BytesIO())
        task.cancel()
        await asyncio.wait([task])
        other._next_run = "closed-to-others"
        again = await other.open_tty(shell("echo instead"))
        with pytest.raises((UsageError, RecordingFailed)):
            await again.wait()
    assert b"secret" in (shared_agent.state / "recordings" / "closed-to-others.cast").read_bytes()


async def test_a_caller_that_did_not_ask_for_it_reads_no_run_of_others(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent, "tty:**") as ex:
        with pytest.raises(CapabilityDenied, match="denied by the caller"):
            await Viewer().watch(ex, "some-other-run")


async def test_a_slow_viewer_never_slows_the_terminal_and_is_told_what_it_missed(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        terminal = await ex.open_tty(
            shell("stty -opost -echo; echo up; read -r x; seq 1 2000000; read -r x; echo last")
        )
        await read_until(terminal, b"up")
        slow, quick = Viewer(), Viewer()
        run = await run_of(ex)
        tasks = [slow.watch(ex, run), quick.watch(ex, run)]
        await eventually(lambda: b"up" in slow.seen and b"up" in quick.seen, within_s=20, what="both to have caught up")
        slow.held.clear()
        await terminal.write(b"\r")
        await read_until(terminal, b"2000000\n", 60)  # 15 MB, while one viewer takes nothing at all
        slow.held.set()
        await terminal.write(b"\r")
        await read_all(terminal)
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert any("too slow" in note for note in slow.notes)
    assert slow.seen.endswith(b"last\n"), "whoever is moved on sees the last words all the same"
    assert b"\x1b[2J" in slow.seen  # a screen with a gap begins anew
    assert len(slow.seen) < 15_000_000


async def test_viewers_have_places_of_their_own_and_only_so_many() -> None:
    with OpsAgent(max_runs_per_principal=2) as agent:
        async with rpc(agent) as ex:
            terminal = await ex.open_tty(Tty(argv=("/bin/cat",)))
            await terminal.write(b"x\r")
            await read_until(terminal, b"x\r\nx\r\n")
            run = await run_of(ex)
            viewers = [Viewer(), Viewer()]
            tasks = [viewer.watch(ex, run) for viewer in viewers]
            await eventually(lambda: all(v.seen for v in viewers), within_s=20, what="two who watch")
            with pytest.raises(Exception, match="followers of runs"):
                await Viewer().watch(ex, run)
            await terminal.aclose()
            await asyncio.gather(*tasks)


# -- recordings that were changed -----------------------------------------------------------------------------------


@pytest.fixture
async def recorded(ops_agent: OpsAgent, tmp_path: Path) -> tuple[Path, Path, str]:
    """A copy of a recording, the audit log, and the run."""
    async with rpc(ops_agent) as ex:
        terminal = await ex.open_tty(shell("echo one; echo two; exit 3"))
        await read_all(terminal)
        run = (await terminal.wait()).run
        with (tmp_path / "a.cast").open("wb") as file:
            await ex.terminals.fetch(run, file)
    return tmp_path / "a.cast", ops_agent.state / "audit.jsonl", run


async def test_a_recording_that_was_forged_is_found_out(recorded: tuple[Path, Path, str]) -> None:
    path, log, run = recorded
    good = path.read_bytes()
    anchors = anchors_in(log, run)
    lines = good.splitlines(keepends=True)
    forged = {
        "a byte": good.replace(b"two", b"TWO"),
        "a time": good.replace(b"[0.", b"[1.", 1),
        "a line less": b"".join(line for line in lines if b"one" not in line),
        "a line more": b"".join((*lines[:3], b'[0.1,"o","rm -rf"]\n', *lines[3:])),
        "two lines changed about": b"".join((lines[0], *lines[2:0:-1], *lines[3:])),
        "cut off": b"".join(lines[:-2]),
        "torn": good[:-5],
        "appended": good + b'[0.1,"o","more"]\n',
        "empty": b"",
        "the links taken out": b"".join(line for line in lines if not line.startswith(b"#")),
    }
    verify_recording(path, run, anchors)
    for what, data in forged.items():
        path.write_bytes(data)
        with pytest.raises(RecordingForged):
            pytest.fail(f"{what}: {verify_recording(path, run, anchors)}")


async def test_links_made_anew_over_a_forged_recording_are_not_those_of_the_audit(
    recorded: tuple[Path, Path, str],
) -> None:
    from opsexec.recording_chain import Chain

    path, log, run = recorded
    chain = Chain(run)
    made = b""
    for line in path.read_bytes().replace(b"two", b"TWO").splitlines(keepends=True):
        if line.startswith(b"# link"):
            made += chain.next_link()
        else:
            chain.add(line)
            made += line
    path.write_bytes(made)
    with pytest.raises(RecordingForged, match="the audit knows another hash"):
        verify_recording(path, run, anchors_in(log, run))


async def test_another_runs_recording_does_not_stand_for_this_one(recorded: tuple[Path, Path, str]) -> None:
    path, log, run = recorded
    with pytest.raises(RecordingForged):
        verify_recording(path, "another-run", anchors_in(log, run))
    with pytest.raises(RecordingForged, match="nothing vouches"):
        verify_recording(path, "another-run", anchors_in(log, "another-run"))
