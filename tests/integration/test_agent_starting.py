"""ops-agent begins, is told of a changed configuration, and refuses what isn't safe to begin with."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from opsexec import (
    AgentRpc,
    CapabilitySet,
    Exec,
    NullAudit,
    Tty,
    connect,
)
from opsexec.errors import (
    CapabilityDenied,
    HostUnreachable,
    ProtocolError,
)
from opsexec.steps import SandboxRun
from tests.parts.agent_calls import ME, REPOSITORY, grant, rpc, started_sleeper
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.process_tree import alive, processes_with_argument
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_reloading_takes_the_new_grants_or_keeps_the_old_and_says_so() -> None:
    with OpsAgent(grant("exec:/bin/true")) as agent:
        async with rpc(agent) as ex:
            with pytest.raises(CapabilityDenied):
                await ex.run(Exec(["/bin/false"]))
            agent.write_config(grant("exec:/bin/false"))
            agent.send(signal.SIGHUP)
            await eventually(lambda: "reloaded: 1 grants" in agent.said(), within_s=10, what="reload")
            assert (await ex.run_streaming(Exec(["/bin/false"]))).exit_code == 1
            with pytest.raises(CapabilityDenied):
                await ex.run(Exec(["/bin/true"]))
            agent.config.write_text(agent.config.read_text().replace("capabilities", "capabilites"))
            agent.send(signal.SIGHUP)
            await eventually(lambda: "not reloaded" in agent.said(), within_s=10, what="refusal")
            assert "unknown key 'capabilites'" in agent.said()
            assert (await ex.run_streaming(Exec(["/bin/false"]))).exit_code == 1


@pytest.mark.parametrize("table", ["audit", "agent"])
async def test_what_takes_a_restart_is_refused_when_reloading_and_nothing_else_is_taken_with_it(table: str) -> None:
    with OpsAgent(grant("exec:/bin/true")) as agent:
        changed = {"audit": ("[audit]", "[audit]\nsign_every_s = 30"), "agent": ("agent-under-test", "another-name")}
        agent.write_config(grant("exec:/bin/false"))
        agent.config.write_text(agent.config.read_text().replace(*changed[table]))
        agent.send(signal.SIGHUP)
        await eventually(
            lambda: f"[{table}] has changed, which takes a restart" in agent.said(), within_s=10, what="no"
        )
        async with rpc(agent) as ex:
            assert (await ex.run(Exec(["/bin/true"]))).ok


HASTY = """
import os, pathlib, signal, sys
import agent.server as server
real = server.open_state
def told_too_early(*given):
    file = pathlib.Path(sys.argv[-1])
    file.write_text(file.read_text().replace("/bin/false", "/bin/true"))
    os.kill(os.getpid(), signal.SIGHUP)
    return real(*given)
server.open_state = told_too_early
from agent.cli import main
sys.exit(main())
"""


async def test_a_reload_that_is_asked_for_before_it_serves_is_taken_once_it_does() -> None:
    with OpsAgent(grant("exec:/bin/false"), program=("-c", HASTY)) as agent:
        await eventually(lambda: "reloaded: 1 grants" in agent.said(), within_s=30, what="reload")
        assert agent.said().index("serving") < agent.said().index("reloaded")
        async with rpc(agent) as ex:
            assert (await ex.run(Exec(["/bin/true"]))).ok


def catches_hangups(pid: int) -> bool:
    """Whether the process has a handler of its own for SIGHUP, number 1 (proc(5): SigCgt)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return bool(int(next(line.split()[1] for line in lines if line.startswith("SigCgt:")), 16) & 1)


async def test_an_agent_that_is_still_loading_is_told_to_reload_again_and_again() -> None:
    agent = OpsAgent(grant("exec:/bin/true"))
    try:
        agent.begin()
        await eventually(lambda: catches_hangups(agent.pid), within_s=30, what="it gets past Python's own start")

        def told_and_serving() -> bool:
            agent.send(signal.SIGHUP)
            return "serving" in agent.said()

        await eventually(told_and_serving, within_s=60, what="it serves")
        await eventually(lambda: "reloaded: 1 grants" in agent.said(), within_s=30, what="reload")
        async with rpc(agent) as ex:
            assert (await ex.run(Exec(["/bin/true"]))).ok
    finally:
        agent.__exit__(None, None, None)


FAILING = """
import sys
from agent.schedule.keeper import Keeper
Keeper._look = lambda self, group: {}["a secret"]
from agent.cli import main
sys.exit(main())
"""


async def test_a_part_that_fails_ends_the_agent_so_that_nothing_goes_unattended_unseen() -> None:
    with OpsAgent(program=("-c", FAILING)) as agent:
        assert await asyncio.to_thread(agent.died) == 3
        last = agent.said().splitlines()
        assert any("a part of the agent failed (KeyError at " in line for line in last)
        assert "a secret" not in agent.said()
        assert "Traceback" not in agent.said()


THREADLESS = """
import sys, threading
import agent.server as server
real = server.notify
def then_none(*said):
    threading.stack_size({"READY=1": 1 << 62, "STOPPING=1": 0}.get(said[0], 0))  # no room for such a stack
    real(*said)
server.notify = then_none
from agent.cli import main
sys.exit(main())
"""


async def test_an_agent_that_can_have_no_more_threads_goes_on() -> None:
    with OpsAgent(grant("exec:**"), program=("-c", THREADLESS)) as agent:
        async with rpc(agent) as ex:
            assert (await ex.run(Exec(["/bin/true"]))).ok
            run = await ex.start(Exec(["/bin/sh", "-c", "exit 7"]))
            assert (await ex.attach(run)).exit_code == 7
            signed = agent.state / "audit.jsonl.heads"
            await eventually(signed.exists, within_s=30, what="the audit's head is signed")
            assert (await ex.run(Exec(["/bin/true"]))).ok
        assert agent.end() == 0
        assert "failed" not in agent.said()


async def test_the_service_manager_is_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"\0ops-agent-test-{os.getpid()}-{secrets.token_hex(4)}"
        manager.bind(name)
        manager.settimeout(10)
        with OpsAgent(environment={"NOTIFY_SOCKET": "@" + name[1:]}) as agent:
            assert b"READY=1" in manager.recv(4096)
            agent.send(signal.SIGHUP)
            assert b"RELOADING=1\nMONOTONIC_USEC=" in manager.recv(4096)
            assert b"READY=1" in manager.recv(4096)
            agent.end()
            assert b"STOPPING=1" in manager.recv(4096)


def start_and_say(agent: OpsAgent) -> tuple[int, str]:
    argv = [sys.executable, "-m", "agent", "--config", str(agent.config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, cwd=REPOSITORY, check=False)
    return done.returncode, done.stderr


async def test_a_second_agent_and_an_unsafe_directory_are_refused() -> None:
    with OpsAgent() as agent:
        assert stat.S_IMODE(agent.socket.stat().st_mode) == 0o600
        status, said = start_and_say(agent)
        assert (status, "another agent holds" in said) == (3, True)
        agent.end(signal.SIGKILL)
        agent.socket.parent.chmod(0o777)
        status, said = start_and_say(agent)
        assert (status, "is writable for others" in said) == (3, True)
        agent.socket.parent.chmod(0o755)
        agent.socket.unlink()
        agent.socket.write_text("not a socket")
        status, said = start_and_say(agent)
        assert (status, "is not a socket" in said) == (3, True)
        agent.socket.unlink()
        agent.start()


@pytest.mark.parametrize("way", ["another's directory", "a link of another's", "writable for all"])
async def test_a_state_directory_that_another_user_could_move_is_refused(plain_user: str, way: str) -> None:
    """They could put runs, recordings and schedules of their own making in the place of the agent's."""
    uid = pwd.getpwnam(plain_user).pw_uid
    agent = OpsAgent()
    theirs = agent.directory / "theirs"
    theirs.mkdir()
    if way == "a link of another's":
        link = agent.directory / "link"
        link.symlink_to(theirs)
        os.lchown(link, uid, uid)
        agent.state = link / "state"
    else:
        os.chown(theirs, uid if way == "another's directory" else 0, 0)
        theirs.chmod(0o755 if way == "another's directory" else 0o777)
        agent.state = theirs / "below" / "state"
    agent.write_config(grant("exec:/bin/true"))
    with agent._held:
        status, said = await asyncio.to_thread(start_and_say, agent)
    assert (status, "is another user's or writable for all" in said) == (3, True), said


async def test_an_agent_that_ends_leaves_another_ones_socket_where_its_own_was() -> None:
    with OpsAgent() as first:
        first.socket.unlink()
        second = OpsAgent()
        second.socket = first.socket
        second.write_config(grant("exec:/bin/true"))
        with second:
            first.end()
            async with rpc(second) as ex:
                assert (await ex.run(Exec(["/bin/true"]))).ok
        assert not second.socket.exists()


async def test_a_peer_that_is_no_agent_is_refused(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nOps-Protocol: 1.0\r\nContent-Type: "
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nOps-Protocol: 2.0\r\nContent-Length: 0\r\n\r\n",
        head + b"text/html\r\nContent-Length: 2\r\n\r\nhi",
        head + b"application/vnd.opsexec.frames\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"A" * 70_000,
    ]  # fmt: skip
    for number, answer in enumerate(answers):
        path = tmp_path / f"fake{number}.sock"

        async def fake_agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = answer) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(fake_agent, path)
        async with (
            server,
            AgentRpc(f"agent+unix://{path}", capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex,
        ):
            with pytest.raises(ProtocolError):
                await ex.run(Exec(["true"]))


async def test_no_agent_is_said_plainly(tmp_path: Path) -> None:
    url = f"agent+unix://{tmp_path}/none.sock"
    async with connect(url, capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex:
        with pytest.raises(HostUnreachable, match="No such file"):
            await ex.run(Exec(["true"]))


async def test_what_runs_is_judged_again_when_the_config_is_read_again(tmp_path: Path) -> None:
    """Two runs of one caller: the one whose grant has gone is ended with its tree, the other goes on."""
    with OpsAgent(grant("exec:/bin/sleep **", "shell:t.*")) as agent:
        async with rpc(agent) as ex:
            losing, pid = await started_sleeper(ex, tmp_path)
            staying = asyncio.create_task(ex.run(Exec(["/bin/sleep", "3.0471"])))
            await eventually(lambda: processes_with_argument("3.0471"), within_s=20, what="the second run")
            agent.write_config(grant("exec:/bin/sleep **"))
            agent.send(signal.SIGHUP)
            with pytest.raises(CapabilityDenied, match="holds no grant for it any more"):
                await asyncio.wait_for(losing, 10)
            await eventually(lambda: not alive(pid), within_s=20, what="its tree is ended")
            assert "1 runs ended that they don't admit" in agent.said()
            assert (await staying).ok
        denials = [line for line in agent.records() if line["decision"] == "deny"]
        assert [(line["principal"], line["step"]["type"]) for line in denials] == [(ME, "shell")]
        assert "is ended" in denials[0]["reason"]


async def test_a_terminal_that_nobody_was_asked_about_ends_when_somebody_must_be(plain_user: str) -> None:
    with OpsAgent([{"principal": ME, "capabilities": EVERYTHING}]) as agent:
        async with rpc(agent) as ex:
            terminal = await ex.open_tty(Tty(["/bin/sleep", "66.0472"]))
            await eventually(lambda: processes_with_argument("66.0472"), within_s=20, what="the terminal")
            agent.tables = f'[consent]\nusers = ["unix:{plain_user}"]\nalways = true'
            agent.write_config([{"principal": ME, "capabilities": EVERYTHING}])
            agent.send(signal.SIGHUP)
            with pytest.raises(CapabilityDenied, match="nobody was asked"):
                await asyncio.wait_for(terminal.wait(), 10)
            await eventually(lambda: not processes_with_argument("66.0472"), within_s=20, what="its end")


async def test_what_works_on_a_tree_ends_when_its_grant_is_narrowed(tmp_path: Path) -> None:
    """A sandbox holds all of the tree it was given; a grant that stops at its first names admits its name alone."""
    tree = tmp_path / "tree"
    tree.mkdir()
    shown = {"/usr": "/usr/", "/lib": "/usr/lib/", "/lib64": "/usr/lib64/", "/t": f"{tree}/"}
    step = SandboxRun("held", ["/usr/bin/sleep", "66.0473"], read_only=shown)
    wide = ["sandbox.run:*", "fs.read:/usr/**"]
    with OpsAgent(grant(*wide, f"fs.read:{tree}/**")) as agent:
        async with rpc(agent) as ex:
            running = asyncio.create_task(ex.run(step))
            await eventually(lambda: processes_with_argument("66.0473"), within_s=10, what="the sandbox")
            agent.write_config(grant(*wide, f"fs.read:{tree}/*"))
            agent.send(signal.SIGHUP)
            with pytest.raises(CapabilityDenied):
                await asyncio.wait_for(running, 15)
            await eventually(lambda: not processes_with_argument("66.0473"), within_s=10, what="its end")
