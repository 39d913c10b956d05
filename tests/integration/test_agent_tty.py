"""Terminals through an agent: a real one, recorded or not at all, gone with its caller and with its agent."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import CapabilitySet, NullAudit, Tty, connect
from opsexec.audit import verify
from opsexec.errors import CapabilityDenied, ConnectionLost, LimitExceeded, ProtocolError, RecordingFailed, StepFailed
from opsexec.recording_anchors import anchors_in
from opsexec.recording_chain import verify_recording
from opsexec.wire import RESIZE, STDIN_END, encode_request, frame
from tests.conftest import require
from tests.integration.conftest import require_root
from tests.parts.agent_calls import http, json_lines, post
from tests.parts.agent_terminals import Viewer, read_all, read_until, rpc, run_of, shell
from tests.parts.ops_agent import OpsAgent
from tests.parts.process_tree import processes_with_argument
from tests.parts.sshd import Sshd
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
FULL_SCREEN = """
import os, signal, sys, tty
def draw(*_): sys.stdout.write("[%d %d]" % tuple(os.get_terminal_size())); sys.stdout.flush()
signal.signal(signal.SIGWINCH, draw); tty.setraw(0); sys.stdout.write("\\x1b[?1049h"); draw()
key = os.read(0, 1); os.system("stty sane"); print("key %d\\x1b[?1049l" % key[0])
"""
"""What an editor does: another screen, every key as it is, drawn anew when the size changes."""

ME = f"unix:{current_user()}"


@pytest.fixture
def own_agent() -> Iterator[OpsAgent]:
    """An agent that a test may kill."""
    with OpsAgent(tables="[recordings]\nlink_s = 0.2") as running:
        yield running


def recording(agent: OpsAgent, run: str) -> Path:
    return agent.state / "recordings" / f"{run}.cast"


async def test_job_control_and_a_full_screen_program_work(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        terminal = await ex.open_tty(Tty(argv=("/bin/bash", "--norc", "--noprofile", "-i"), columns=70, rows=20))
        await terminal.write(b"PS1='$ '\r")
        await terminal.write(b"sleep 66.0101\r")
        await eventually(lambda: processes_with_argument("66.0101"), within_s=10, what="the sleep")
        await terminal.write(b"\x1a")
        await read_until(terminal, b"Stopped")
        await terminal.write(b"echo in-between; fg\r")
        await read_until(terminal, b"in-between\r\n")
        await terminal.write(b"\x03")
        await eventually(lambda: not processes_with_argument("66.0101"), within_s=10, what="its end by Ctrl-C")
        await terminal.write(b"echo left=$?\r")
        await read_until(terminal, b"left=130")
        await terminal.write(f"python3 -c {shlex.quote(FULL_SCREEN)}\r".encode())
        await read_until(terminal, b"\x1b[?1049h[70 20]")
        terminal.resize(101, 33)
        await read_until(terminal, b"[101 33]")
        await terminal.write(b"\x03")  # no signal to a program that takes keys raw
        await read_until(terminal, b"key 3\x1b[?1049l")
        await terminal.write(b"exit 5\r")
        await read_all(terminal)
        assert (await terminal.wait()).exit_code == 5


async def test_a_terminal_is_recorded_on_the_host_and_its_links_are_in_the_audit(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        terminal = await ex.open_tty(shell("stty -echo; echo up; read -r word; echo got ${#word}; exit 3"))
        await read_until(terminal, b"up")
        run = await run_of(ex)
        terminal.resize(90, 31)
        await terminal.write(b"hunter2\r")
        await read_all(terminal)
        assert (await terminal.wait()).exit_code == 3
    path = recording(ops_agent, run)
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "got 7" in text
    assert "hunter2" not in text
    assert '"r","90x31"]' in text
    assert '"x","3"]' in text
    log = ops_agent.state / "audit.jsonl"
    found = verify_recording(path, run, anchors_in(log, run))
    assert found.complete
    assert found.anchored == found.size == path.stat().st_size
    assert verify(log).ok
    kinds = [
        (line["decision"], line["step"] and line["step"]["type"]) for line in ops_agent.records() if line["run"] == run
    ]
    assert kinds[0] == ("allow", "tty")
    assert kinds[1] == (None, "tty.recording")
    assert kinds[-2:] == [(None, "tty.recording"), (None, None)]


async def test_keys_are_recorded_where_the_config_says_so() -> None:
    with OpsAgent(tables="[recordings]\ninput = true") as agent:
        async with rpc(agent) as ex:
            terminal = await ex.open_tty(shell("stty -echo; echo up; read -r word"))
            await read_until(terminal, b"up")
            run = await run_of(ex)
            await terminal.write(b"hunter2\r")
            await read_all(terminal)
        assert '"i","hunter2\\r"]' in recording(agent, run).read_text()


async def test_no_recording_no_terminal(own_agent: OpsAgent) -> None:
    (own_agent.state / "recordings").write_text("in the way")
    async with rpc(own_agent) as ex:
        terminal = await ex.open_tty(shell("sleep 66.0102"))
        with pytest.raises(RecordingFailed, match="recordings can't be looked at"):
            await terminal.wait()
        assert await read_all(terminal) == b""
    assert not processes_with_argument("66.0102")
    assert own_agent.records()[-1]["outcome"]["error"] == "recording"


@pytest.mark.parametrize("how", ["removed", "replaced", "cut", "added"])
async def test_a_recording_that_somebody_touches_ends_its_terminal(own_agent: OpsAgent, how: str) -> None:
    async with rpc(own_agent) as ex:
        terminal = await ex.open_tty(shell("echo up; while :; do echo 66.0103; sleep 0.05; done"))
        await read_until(terminal, b"up")
        path = recording(own_agent, run := await run_of(ex))
        if how == "removed":
            path.unlink()
        elif how == "replaced":
            (path.parent / "x").write_bytes(path.read_bytes())
            (path.parent / "x").rename(path)
        elif how == "cut":
            os.truncate(path, 10)
        else:
            with path.open("ab") as stream:
                stream.write(b'[0.1,"o","forged"]\n')
        await read_all(terminal)
        with pytest.raises(RecordingFailed):
            await terminal.wait()
        await terminal.aclose()
    ended = [line["outcome"] for line in own_agent.records() if line["run"] == run and line["outcome"]]
    assert [each["error"] for each in ended] == ["recording"]


async def test_a_recording_over_its_limit_ends_its_terminal() -> None:
    with OpsAgent(tables="[recordings]\nmax_bytes = 65536") as agent:
        async with rpc(agent) as ex:
            terminal = await ex.open_tty(Tty(argv=("yes", "66.0104")))
            await read_all(terminal)
            with pytest.raises(RecordingFailed, match="over its limit"):
                await terminal.wait()
            await terminal.aclose()
        assert not processes_with_argument("66.0104")


async def test_the_oldest_recordings_go_and_the_audit_says_so() -> None:
    with OpsAgent(tables="[recordings]\nkeep = 2") as agent:
        async with rpc(agent) as ex:
            for _ in range(5):
                terminal = await ex.open_tty(shell("true"))
                await read_all(terminal)
                await terminal.wait()
        kept = list((agent.state / "recordings").iterdir())
        removed = [line for line in agent.records() if line["step"] and line["step"]["type"] == "tty.recording.remove"]
    assert len(kept) == 3  # two that had ended when the last one began, and that one
    assert len(removed) == 2


async def test_an_agent_killed_leaves_no_tree_and_a_recording_that_holds_up_to_its_last_link(
    own_agent: OpsAgent,
) -> None:
    async with rpc(own_agent) as ex:
        terminal = await ex.open_tty(shell("echo up; sleep 66.0105 & setsid sleep 66.0105 & wait"))
        await read_until(terminal, b"up")
        run = await run_of(ex)
        await eventually(lambda: len(processes_with_argument("66.0105")) == 2, within_s=20, what="both sleeps")
        log = own_agent.state / "audit.jsonl"
        await eventually(lambda: len(anchors_in(log, run)) == 2, within_s=15, what="a second link, by the clock")
        own_agent.end(signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            await terminal.wait()
    await eventually(lambda: not processes_with_argument("66.0105"), within_s=20, what="the end of the tree")
    found = verify_recording(recording(own_agent, run), run, anchors_in(log, run))
    assert not found.complete
    assert found.anchored == found.size
    assert b'"up\\r\\n"]' in recording(own_agent, run).read_bytes()
    own_agent.start()
    lost = [line for line in own_agent.records() if line["run"] == run and line["outcome"]]
    assert [each["outcome"]["error"] for each in lost] == ["lost"]
    own_agent.end()
    own_agent.start()
    assert len([line for line in own_agent.records() if line["run"] == run and line["outcome"]]) == 1


async def test_a_caller_that_is_lost_while_the_program_takes_no_keys_loses_its_terminal(own_agent: OpsAgent) -> None:
    """Keys that nobody takes stop the agent from reading: it must see the caller go all the same."""
    async with rpc(own_agent) as ex:
        terminal = await ex.open_tty(shell("stty raw; echo up; exec sleep 66.0106"))
        await read_until(terminal, b"up")
        flood = asyncio.create_task(terminal.write(b"k" * (8 << 20)))
        await asyncio.wait([flood], timeout=0.5)
        for link in ex._agent._used:
            link.abort(ConnectionLost("cut"))
        await eventually(lambda: not processes_with_argument("66.0106"), within_s=3, what="the end of the program")
        flood.cancel()


async def test_a_denied_terminal_is_denied_by_the_agent_alone_too() -> None:
    with OpsAgent([{"principal": ME, "capabilities": ["tty:/bin/cat"]}]) as agent:
        async with rpc(agent) as ex:
            terminal = await ex.open_tty(shell("true"))
            with pytest.raises(CapabilityDenied, match="denied by the agent: needs tty:"):
                await terminal.wait()
        assert agent.records()[-1]["decision"] == "deny"
        assert not (agent.state / "recordings").exists()


async def test_through_ssh_it_is_the_same_terminal(sshd: Sshd, plain_user: str) -> None:
    grants = [{"principal": f"unix:{plain_user}", "capabilities": ["tty:/bin/sh -c **"]}]
    with OpsAgent(grants, mode="0666") as agent:
        end = sshd.endpoint(user=plain_user)
        async with connect(
            f"agent+{end.url}{agent.socket}",
            capabilities=CapabilitySet.everything(),
            audit=NullAudit(),
            identity_files=[str(end.identity)],
            known_hosts=str(end.known_hosts),
            config_files=(),
        ) as ex:
            script = "trap 'stty size' WINCH; trap 'echo int' INT; echo up; for i in $(seq 200); do sleep 0.05; done"
            terminal = await ex.open_tty(shell(script))
            await read_until(terminal, b"up")
            terminal.resize(91, 33)
            await read_until(terminal, b"33 91")
            await terminal.write(b"\x03")
            await read_until(terminal, b"int")
            await terminal.aclose()
        assert agent.records()[-1]["principal"] == f"unix:{plain_user}"


@pytest.mark.parametrize(
    "sent",
    [frame(RESIZE, b"\0"), frame(RESIZE, b"\0\0\0\0"), frame(0x7F, b""), frame(0x01, b""), b"\x02\xff\xff\xff\xff"],
    ids=["short", "zero", "unknown", "request", "huge"],
)
async def test_malformed_frames_end_the_terminal_and_not_the_agent(ops_agent: OpsAgent, sent: bytes) -> None:
    async with rpc(ops_agent) as ex:
        terminal = await ex.open_tty(Tty(argv=("/bin/sleep", "66.0107")))
        await eventually(lambda: processes_with_argument("66.0107"), within_s=10, what="the program")
        (link,) = ex._agent._used
        await link.send(b"%x\r\n%b\r\n" % (len(sent), sent))
        with pytest.raises((ProtocolError, ConnectionLost)):
            await asyncio.wait_for(terminal.wait(), 10)
        await eventually(lambda: not processes_with_argument("66.0107"), within_s=20, what="its end")
        assert (await ex.whoami())["principal"] == ME


async def test_only_a_tty_step_gets_a_terminal(ops_agent: OpsAgent) -> None:
    from opsexec import Exec
    from opsexec.hosts.agent_exchange import Exchange, request_head

    request = encode_request(Exec(["true"]), run="no-terminal-needed", streams_stdin=True)
    async with rpc(ops_agent) as ex, ex._agent.link() as link:
        with pytest.raises(Exception, match="needs no terminal"):
            await Exchange(link, "agent").run(request_head("POST", "/v1/tty", len(request)) + request)


async def test_a_terminals_end_names_the_run_that_was_asked_for_and_not_its_mark(ops_agent: OpsAgent) -> None:
    run = secrets.token_hex(8)
    request = encode_request(Tty(argv=("/bin/cat",)), run=run, streams_stdin=True)
    body = request + frame(STDIN_END)
    said = http(ops_agent, *post(body, "Accept: application/x-ndjson", "Connection: close", path="/v1/tty"))
    assert json_lines(said)[-1]["result"]["run"] == run


async def test_terminals_count_among_a_principals_runs() -> None:
    with OpsAgent(max_runs_per_principal=1) as agent:
        async with rpc(agent) as ex:
            first = await ex.open_tty(Tty(argv=("/bin/cat",)))
            await first.write(b"x\r")
            await read_until(first, b"x\r\nx\r\n")
            second = await ex.open_tty(Tty(argv=("/bin/cat",)))
            with pytest.raises(LimitExceeded):
                await second.wait()
            await first.aclose()


async def test_a_run_is_ended_by_who_may_signal_it_and_its_caller_is_told(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        terminal = await ex.open_tty(shell("echo up; trap '' HUP INT TERM; sleep 66.0108"))
        await read_until(terminal, b"up")
        await ex.signal(await run_of(ex), "end")
        with pytest.raises(StepFailed, match=f"ended by {ME}"):
            await terminal.wait()
    assert not processes_with_argument("66.0108")


async def test_the_recorder_keeps_up_with_much_output(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        terminal = await ex.open_tty(shell("stty -opost; seq 1 300000"))
        watching = Viewer()
        task = watching.watch(ex, await eventually_run(ex))
        said = await read_all(terminal, 30)
        output = await terminal.wait()
        await asyncio.wait_for(task, 30)
        file = io.BytesIO()
        links = await ex.terminals.fetch(output.run, file)
    assert said == b"".join(b"%d\n" % n for n in range(1, 300001))
    assert watching.seen == said or watching.notes
    assert links[-1].final
    assert links[-1].bytes == len(file.getvalue())


async def eventually_run(ex: object) -> str:
    async with asyncio.timeout(10):
        while True:
            try:
                return await run_of(ex)  # type: ignore[arg-type]  # an AgentRpc
            except ValueError:
                await asyncio.sleep(0)


@pytest.fixture
def small_disk(own_agent: OpsAgent) -> Iterator[Path]:
    """The agent's recordings on a file system of 64 KiB."""
    require_root()
    place = own_agent.state / "recordings"
    place.mkdir(mode=0o700)
    words = ["mount", "-t", "tmpfs", "-o", "size=65536,mode=0700", "tmpfs", str(place)]
    require(subprocess.run(words, capture_output=True, check=False).returncode == 0, "needs mount(8)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


async def test_a_full_disk_ends_the_terminal_and_the_next_one_does_not_open(
    own_agent: OpsAgent, small_disk: Path
) -> None:
    async with rpc(own_agent) as ex:
        terminal = await ex.open_tty(Tty(argv=("yes", "66.0109")))
        said = await read_all(terminal)
        with pytest.raises(RecordingFailed, match=r"No space left|no room"):
            await terminal.wait()
        assert len(said) < 65536 * 2  # nothing was shown that was not recorded
        assert not processes_with_argument("66.0109")
        again = await ex.open_tty(shell("echo never"))
        with pytest.raises(RecordingFailed):
            await again.wait()
        assert await read_all(again) == b""
    assert verify(own_agent.state / "audit.jsonl").ok
